-- Makes records for tags that nobody has used yet, before a fill asks the app: so that the fill is judged by its own tags alone.
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
