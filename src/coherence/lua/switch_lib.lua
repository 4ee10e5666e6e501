-- Shared by the scripts of switches. The key is a hash: of each name (the path of a route, or `*`)
-- the value is `MODE ID END`. The mode is `off`, `shadow`, or `on` for a switch that was ended: it
-- stays until the switch would have ended, so that nobody takes it for one that Redis has lost. The
-- end is a time of this clock, in milliseconds.

-- The switches, by name, and how many there are. Removes what has ended, and what is malformed.
local function switches(key, most, longest, longest_name)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then return {}, 0 end
  -- More than twice as many, or another type: it cannot be ours.
  if kind ~= 'hash' or redis.call('HLEN', key) > 2 * tonumber(most) then
    redis.call('DEL', key)
    return {}, 0
  end
  local now, found, count = now_ms(), {}, 0
  local words = redis.call('HGETALL', key)
  for at = 1, #words, 2 do
    local name, mode, id, ends = words[at], string.match(words[at + 1], '^(%a+) (%x+) (%d+)$')
    local left = ends and #ends <= 16 and #id == 16 and tonumber(ends) - now
    local is_mode = mode == 'off' or mode == 'shadow' or mode == 'on'
    if is_mode and left and left > 0 and left <= tonumber(longest) and #name <= tonumber(longest_name) then
      found[name] = { mode = mode, id = id, left = left }
      count = count + 1
    else
      redis.call('HDEL', key, name)
    end
  end
  return found, count
end

-- Writes one, and lets the key live as long as the one that ends last.
local function write_switch(key, name, mode, id, left, found)
  redis.call('HSET', key, name, mode .. ' ' .. id .. ' ' .. string.format('%d', now_ms() + left))
  local latest = tonumber(left)
  for _, one in pairs(found) do latest = math.max(latest, one.left) end
  redis.call('PEXPIRE', key, string.format('%d', latest))
end
