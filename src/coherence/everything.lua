-- A new generation: everything that was stored is no longer current.
-- KEYS: gen, nodes   ARGV: the generation, publish command, channel, message
redis.call('SET', KEYS[1], ARGV[1])
return say(ARGV[2], ARGV[3], ARGV[4], KEYS[2])
