-- Creates records for tags that were never used, before a fill sends its request to the origin: so
-- that the fill depends on its own tags alone.
-- KEYS: seq, tags...
-- ARGV: record ttl, fence, the step for which the nonces are sealed (or `-`), then per tag: a fresh
--       nonce, and a sealed nonce that the caller does not accept (or `-`)
-- Returns the nonces; `-` where the nonce was sealed for another step.
local ttl, fence, seq = ARGV[1], ARGV[2], step(KEYS[1])
local in_time = ARGV[3] == '-' or ARGV[3] == seq
local nonces = {}
for at = 2, #KEYS do
  local record, fresh, refused = read(KEYS[at], fence), ARGV[2 * at], ARGV[2 * at + 1]
  if is_like(record, fresh) and record.nonce ~= refused then
    nonces[#nonces + 1] = record.nonce
  elseif in_time then
    local pending = without(record and record.pending or '-', '')
    write(KEYS[at], { nonce = fresh, seq = seq }, fence, pending, ttl)
    nonces[#nonces + 1] = fresh
  else
    nonces[#nonces + 1] = '-'
  end
end
return nonces
