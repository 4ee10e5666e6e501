-- Reads the summaries of all sidecars. Work and reply are bounded by the number of slots and the
-- size of a summary, whatever somebody has put there.
-- KEYS: slots   ARGV: the largest summary, in bytes
-- Returns an error or '', how many values are not summaries, and then of each that may be one the
-- milliseconds that it has to live, and itself.
local found, strange, most = {'', ''}, 0, tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  local value = redis.pcall('GETRANGE', key, 0, most)
  if type(value) == 'table' then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then return {value.err} end
    strange = strange + 1
  elseif #value > most then
    strange = strange + 1
  elseif value ~= '' then
    local left = redis.pcall('PTTL', key)
    if type(left) == 'table' then return {left.err} end
    found[#found + 1] = string.format('%d', left)
    found[#found + 1] = value
  end
end
found[2] = string.format('%d', strange)
return found
