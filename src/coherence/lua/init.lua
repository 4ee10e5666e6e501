-- Creates the generation and the step where they are missing or malformed.
-- KEYS: seq, gen   ARGV: a fresh generation
step(KEYS[1])
local kind = redis.call('TYPE', KEYS[2])['ok']
local generation = kind == 'string' and redis.call('GET', KEYS[2]) or ''
if not string.match(generation, '^%x+$') or #generation ~= 32 then
  redis.call('SET', KEYS[2], ARGV[1])
end
return 1
