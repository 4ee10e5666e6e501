-- Creates the generation and the step where they are missing or malformed, and notes the clock.
-- KEYS: seq, gen, clock
-- ARGV: a fresh generation, how many milliseconds the clock may go back, ttl of the keys
step(KEYS[1])
local kind = redis.call('TYPE', KEYS[2])['ok']
local generation = kind == 'string' and redis.call('GET', KEYS[2]) or ''
if not string.match(generation, '^%x+$') or #generation ~= 32 then
  -- What was sealed for this step was sealed under the generation before.
  next_step(KEYS[1])
  redis.call('SET', KEYS[2], ARGV[1])
end
watch_clock(KEYS[3], KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
