-- The origin refused the mutation: ends it, and purges nothing.
-- KEYS: seq, nodes, marks, tags...   ARGV: id, record ttl, fence
local id, ttl, fence = ARGV[1], ARGV[2], ARGV[3]
for at = 4, #KEYS do
  local record = read(KEYS[at], fence)
  if record then write(KEYS[at], record, fence, without(record.pending, id), ttl) end
end
redis.call('HDEL', KEYS[3], id)
return 1
