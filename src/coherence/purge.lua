-- New nonces for the tags: everything that carries one of them is no longer current. The mutation is no longer pending.
-- KEYS: seq, tags...   ARGV: id, record ttl, fence, a fresh nonce per tag
local id, ttl, fence = ARGV[1], ARGV[2], ARGV[3]
local now, seq = now_ms(), next_step(KEYS[1])
for at = 2, #KEYS do
  local record = read(KEYS[at], fence)
  local kept = without(record and record.pending or '-', id, now)
  write(KEYS[at], { nonce = ARGV[at + 2], seq = seq }, fence, kept, ttl)
end
return seq
