-- Makes a new generation: no stored entry is current any more. A soft purge keeps its first half,
-- as with the nonce of a tag.
-- KEYS: seq, gen, nodes   ARGV: publish command, channel, message, soft or hard, a fresh generation
local seq, generation = next_step(KEYS[1]), ARGV[5]
if ARGV[4] == 'soft' and redis.call('TYPE', KEYS[2])['ok'] == 'string' then
  local present = redis.call('GET', KEYS[2])
  if string.match(present, '^%x+$') and #present == 32 then
    generation = soft_nonce(present, seq, now_ms())
  end
end
redis.call('SET', KEYS[2], generation)
return publish(ARGV[1], ARGV[2], ARGV[3], KEYS[3], ARGV[4] == 'hard' and seq)
