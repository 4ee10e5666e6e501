-- Takes the lock of a fill, if it is free.
-- KEYS: lock   ARGV: owner, milliseconds
-- Returns '-' if it was taken, or how many milliseconds its holder has left.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return '-' end
return string.format('%d', redis.call('PTTL', KEYS[1]))
