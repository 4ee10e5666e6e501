-- Makes the generation and the step, where they are missing.
-- KEYS: seq, gen   ARGV: a fresh generation
step(KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'NX')
return 1
