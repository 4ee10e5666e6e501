-- The same while Redis is out of memory. Deleting is still allowed and has the same effect: an
-- absent record is a miss, and a lost step stops every fill.
-- KEYS: seq, nodes, tags (or the generation)...   ARGV: publish command, channel, message
redis.call('DEL', KEYS[1])
for at = 3, #KEYS do redis.call('DEL', KEYS[at]) end
return publish(ARGV[1], ARGV[2], ARGV[3], KEYS[2])
