-- Publishes the summary of a sidecar: in the first slot that is its own or free, or else, if asked
-- to, in that of the sidecar that has been silent for the longest.
-- KEYS: slots, in the order in which to try them
-- ARGV: owner, summary, milliseconds that it lives, and after which silence its slot may be taken;
--       '1' to take such a slot
-- Returns 'ok' and the index of the slot; 'taken' if it is full; or 'refused' and the error.
local lives, silence = tonumber(ARGV[3]), tonumber(ARGV[4])
local function write(at)
  local done = redis.pcall('SET', KEYS[at], ARGV[2], 'PX', ARGV[3])
  if done.err then return {'refused', done.err} end
  return {'ok', string.format('%d', at)}
end
local oldest, least = nil, lives - silence
for at, key in ipairs(KEYS) do
  local owner = redis.pcall('GETRANGE', key, 0, #ARGV[1] - 1)
  if type(owner) == 'table' then
    if not string.find(owner.err, 'WRONGTYPE', 1, true) then return {'refused', owner.err} end
  elseif owner == '' or owner == ARGV[1] then
    return write(at)
  end
  if ARGV[5] == '1' then
    local left = redis.pcall('PTTL', key)
    if type(left) == 'table' then return {'refused', left.err} end
    if left < least then oldest, least = at, left end
  end
end
if oldest then return write(oldest) end
return {'taken', ''}
