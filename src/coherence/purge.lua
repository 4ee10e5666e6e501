-- New nonces for the tags: everything that carries one of them is no longer current. The mutation is no longer pending, nor is any that is
-- past its deadline: this purge speaks for it, too.
-- KEYS: seq, nodes, marks (or seq again), tags...
-- ARGV: id, record ttl, fence, publish command, channel, message, a fresh nonce per tag
local id, ttl, fence = ARGV[1], ARGV[2], ARGV[3]
local now, seq = now_ms(), next_step(KEYS[1])
for at = 4, #KEYS do
  local record = read(KEYS[at], fence)
  local kept = under_way(without(record and record.pending or '-', id), now)
  write(KEYS[at], { nonce = ARGV[at + 3], seq = seq }, fence, kept, ttl)
end
if KEYS[3] ~= KEYS[1] then redis.call('HDEL', KEYS[3], id) end
return say(ARGV[4], ARGV[5], ARGV[6], KEYS[2])
