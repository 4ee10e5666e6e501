-- Creates records for tags that were never used, before a fill sends its request to the origin: so
-- that the fill depends on its own tags alone.
-- KEYS: seq, tags...   ARGV: record ttl, fence, a fresh nonce per tag
-- Returns the nonces.
local ttl, fence = ARGV[1], ARGV[2]
local nonces = {}
for at = 2, #KEYS do
  local record = read(KEYS[at], fence)
  if not record then
    record = { nonce = ARGV[at + 1], seq = step(KEYS[1]) }
    write(KEYS[at], record, fence, {}, ttl)
  end
  nonces[#nonces + 1] = record.nonce
end
return nonces
