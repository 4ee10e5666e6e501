-- Strikes a name out, or looks at one that was. Returns its marks, to be taken as committed.
-- KEYS: nodes, marks   ARGV: name
if redis.call('HGET', KEYS[1], ARGV[1]) == '1' then redis.call('HSET', KEYS[1], ARGV[1], '0') end
return hash(KEYS[2])
