-- Reads the switches: of each its name, its mode, its id, and the milliseconds that are left.
-- KEYS: modes   ARGV: the most switches, the longest time and name
local reply = {}
for name, one in pairs((switches(KEYS[1], ARGV[1], ARGV[2], ARGV[3]))) do
  reply[#reply + 1] = name
  reply[#reply + 1] = one.mode
  reply[#reply + 1] = one.id
  reply[#reply + 1] = string.format('%d', one.left)
end
return reply
