-- Keeps a switch, and tells the peers.
-- KEYS: modes
-- ARGV: publish command, channel, message, the most switches, the longest time and name,
--       name, mode, id, milliseconds that are left
-- Returns `kept`; `ended` if another sidecar has ended this very switch; `full` without room.
local found, count = switches(KEYS[1], ARGV[4], ARGV[5], ARGV[6])
local name, mode, id, left = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local known = found[name]
if known and known.mode == 'on' and known.id == id then return 'ended' end
if not known and count >= tonumber(ARGV[4]) then
  local ended
  for other, one in pairs(found) do
    if one.mode == 'on' then ended = other end
  end
  if not ended then return 'full' end
  redis.call('HDEL', KEYS[1], ended)
end
write_switch(KEYS[1], name, mode, id, left, found)
redis.call(ARGV[1], ARGV[2], ARGV[3])
return 'kept'
