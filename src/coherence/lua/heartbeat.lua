-- A heartbeat: proves that this primary accepts writes, registers the peer if asked to, notes the
-- clock and the protocol, keeps the keys alive, and publishes the message.
-- KEYS: nodes, seq, gen, clock
-- ARGV: publish command, channel, message, peer id (or `-`), lease in milliseconds, ttl of nodes,
--       a fresh generation, how many milliseconds the clock may go back, ttl of the other keys,
--       number of the protocol
-- Returns the replication id, the role, the clock, the registration, whether all speak this
-- protocol (`alone` or `mixed`), and the list of peers.
-- A replica refuses even this script, and so does a primary that has lost its replicas. A primary
-- that is out of memory does not.
local nodes = hash(KEYS[1])
-- A write, whatever follows.
redis.call('HDEL', KEYS[1], '')
local info = redis.call('INFO', 'replication')
local registration = 'absent'
if ARGV[4] ~= '-' then
  local state = redis.call('HGET', KEYS[1], ARGV[4])
  if state == '0' then
    registration = 'evicted'
  elseif state then
    registration = 'known'
  else
    local set = redis.pcall('HSET', KEYS[1], ARGV[4], ARGV[5])
    if type(set) == 'number' then registration = 'new' end
  end
end
local company = watch_protocol(KEYS[1], nodes, ARGV[5], KEYS[2], KEYS[3], ARGV[7], ARGV[10])
watch_clock(KEYS[4], KEYS[2], KEYS[3], ARGV[7], ARGV[8], ARGV[9])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[9])
redis.call('PEXPIRE', KEYS[3], ARGV[9])
-- Published last: a peer that receives it knows that the registration is done.
redis.call(ARGV[1], ARGV[2], ARGV[3])
local reply = {
  string.match(info, 'master_replid:(%x+)') or 'unknown',
  string.match(info, 'role:(%a+)') or 'unknown',
  string.format('%d', now_ms()),
  registration,
  company,
}
for _, word in ipairs(nodes) do reply[#reply + 1] = word end
return reply
