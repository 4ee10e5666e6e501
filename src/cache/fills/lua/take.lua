-- Takes the lease of a fill, if nobody holds it.
-- KEYS: lease   ARGV: owner, milliseconds
-- Returns '-' when it is taken now, and else for how many milliseconds its holder still has it.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return '-' end
return string.format('%d', redis.call('PTTL', KEYS[1]))
