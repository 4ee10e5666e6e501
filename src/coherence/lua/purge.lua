-- New nonces for the tags: everything that carries one of them is no longer current. The mutation is no longer pending, nor is any that is
-- past its deadline: this purge speaks for it, too. A soft purge leaves the first half of a nonce, by which readers know that what carries
-- the tag is stale, and not void; where such a mutation may have been committed, or there is no record, it is a hard one.
-- KEYS: seq, nodes, marks (or seq again), tags...
-- ARGV: id, record ttl, fence, publish command, channel, message, soft or hard, a fresh nonce per tag
local id, ttl, fence, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local now, seq = now_ms(), next_step(KEYS[1])
for at = 4, #KEYS do
  local record, nonce = read(KEYS[at], fence), ARGV[at + 4]
  local pending = without(record and record.pending or '-', id)
  local kept = under_way(pending, now)
  if kind == 'soft' and record and #kept == #pending then nonce = softened(record.nonce, seq, now) end
  write(KEYS[at], { nonce = nonce, seq = seq }, fence, kept, ttl)
end
if KEYS[3] ~= KEYS[1] then redis.call('HDEL', KEYS[3], id) end
return say(ARGV[4], ARGV[5], ARGV[6], KEYS[2])
