-- A sign of life: proves that this primary takes writes, registers the name where that is asked for, and says so on the bus.
-- KEYS: nodes   ARGV: publish command, channel, message, name (or `-`), lease in milliseconds
-- Returns the replication id, the role, the clock, how the name is known, and the list of names.
-- A replica, and a primary that has lost its replicas, refuse even this; one that is out of memory does not.
local nodes = hash(KEYS[1])
redis.call('HDEL', KEYS[1], '-')
local info = redis.call('INFO', 'replication')
local standing = 'absent'
if ARGV[4] ~= '-' then
  local state = redis.call('HGET', KEYS[1], ARGV[4])
  if state == '0' then
    standing = 'struck'
  elseif state then
    standing = 'known'
  else
    local set = redis.pcall('HSET', KEYS[1], ARGV[4], ARGV[5])
    if type(set) == 'number' then standing = 'new' end
  end
end
-- Said last: who hears it knows that the name stands.
redis.call(ARGV[1], ARGV[2], ARGV[3])
local answer = {
  string.match(info, 'master_replid:(%x+)') or 'unknown', string.match(info, 'role:(%a+)') or 'unknown',
  string.format('%d', now_ms()), standing,
}
for _, word in ipairs(nodes) do answer[#answer + 1] = word end
return answer
