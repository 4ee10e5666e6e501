-- Ends switches, unless others have taken their places, and tells the peers.
-- KEYS: modes
-- ARGV: publish command, channel, message, the most switches, the longest time and name,
--       then of each switch: name, id, milliseconds that were left
local found, count = switches(KEYS[1], ARGV[4], ARGV[5], ARGV[6])
for at = 7, #ARGV, 3 do
  local name, id, left = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local known = found[name]
  if known and known.id == id then
    write_switch(KEYS[1], name, 'on', id, left, found)
  elseif not known and count < tonumber(ARGV[4]) then
    write_switch(KEYS[1], name, 'on', id, left, found)
    count = count + 1
  end
end
redis.call(ARGV[1], ARGV[2], ARGV[3])
return 1
