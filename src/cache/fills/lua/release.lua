-- Releases a lock that is still ours and publishes the outcome, in one step: a sidecar that finds
-- the lock taken will receive the message of its release.
-- KEYS: lock   ARGV: owner, channel, message, the command that publishes
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return '0' end
redis.call('DEL', KEYS[1])
redis.call(ARGV[4], ARGV[2], ARGV[3])
return '1'
