-- Adds a pending mutation to the records of its tags, or extends its deadline. Nonces stay the
-- same, so hits go on, unless the guard keeps them away.
-- KEYS: seq, nodes, marks, tags...
-- ARGV: id, milliseconds until the deadline, guard (m or b), record ttl, fence, value of the mark,
--       publish command, channel, message (or empty, if peers need not know), then a fresh nonce
--       per tag
local id, within, guard, ttl, fence = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local now = now_ms()
for at = 4, #KEYS do
  local record = read(KEYS[at], fence)
    or { nonce = ARGV[at + 6], seq = step(KEYS[1]), pending = '-' }
  local pending = without(record.pending, id)
  pending[#pending + 1] = id .. ':' .. string.format('%d', now + within) .. ':' .. guard
  write(KEYS[at], record, fence, pending, ttl)
end
hash(KEYS[3])
redis.call('HSET', KEYS[3], id, ARGV[6])
redis.call('PEXPIRE', KEYS[3], ttl)
if ARGV[9] == '' then return {} end
return publish(ARGV[7], ARGV[8], ARGV[9], KEYS[2])
