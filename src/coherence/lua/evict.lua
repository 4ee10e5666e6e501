-- Evicts a peer, or reads one that was evicted. Returns its marks, which then count as committed.
-- The value of a registered peer is its lease; that of an evicted peer is `0`.
-- KEYS: nodes, marks   ARGV: peer id
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], '0') end
return hash(KEYS[2])
