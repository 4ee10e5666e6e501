-- Ends a lease that is still ours, and tells those who wait for it, in one step: nobody finds it taken who would not hear of its end.
-- KEYS: lease   ARGV: owner, channel, message, the command that publishes
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return '0' end
redis.call('DEL', KEYS[1])
redis.call(ARGV[4], ARGV[2], ARGV[3])
return '1'
