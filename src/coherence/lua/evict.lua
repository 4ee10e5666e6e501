-- Strikes a name out, or looks at one that was. Returns its marks, to be taken as committed.
-- A name that stands has its lease for a value, one that is struck out `0`.
-- KEYS: nodes, marks   ARGV: name
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], '0') end
return hash(KEYS[2])
