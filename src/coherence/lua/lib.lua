-- Shared by all scripts: reading and writing a tag's record, `1 NONCE SEQ FENCE PENDING`, and speaking on the bus.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The step of the latest purge. Seeded from the clock, so that it never falls back behind a value it had before it was lost.
local function step(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'string' and kind ~= 'none' then redis.call('DEL', key) end
  local seq = redis.call('GET', key)
  -- Sixteen digits of microseconds last until the year 2286; anything else was not written here.
  if not seq or not string.match(seq, '^%d+$') or #seq > 16 then
    local time = redis.call('TIME')
    seq = time[1] .. string.format('%06d', tonumber(time[2]))
    redis.call('SET', key, seq)
  end
  return seq
end

local function next_step(key)
  step(key)
  return string.format('%d', redis.call('INCR', key))
end

-- nil when there is no record, or none that this fence vouches for.
local function read(key, fence)
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'string' then
    if kind ~= 'none' then redis.call('DEL', key) end
    return nil
  end
  local nonce, seq, by, pending = string.match(redis.call('GET', key), '^1 (%x+) (%d+) (%S+) (%S+)$')
  if not nonce or #nonce ~= 32 or by ~= fence then return nil end
  return { nonce = nonce, seq = seq, pending = pending }
end

-- The state that a soft purge makes of a state: its first half stays; the second tells when, and at which step, so that no two are alike.
local function softened(nonce, seq, now)
  return string.sub(nonce, 1, 16) .. string.format('%011x%05x', now, tonumber(seq) % 1048576)
end

-- The pending mutations without the one named.
local function without(pending, id)
  local kept = {}
  for item in string.gmatch(pending, '[^,]+') do
    local name = string.match(item, '^(.*):%d+:%a$')
    if name and name ~= id then kept[#kept + 1] = item end
  end
  return kept
end

-- The pending mutations that are not past their deadline.
local function under_way(pending, now)
  local kept = {}
  for _, item in ipairs(pending) do
    if tonumber(string.match(item, ':(%d+):%a$')) >= now then kept[#kept + 1] = item end
  end
  return kept
end

-- Writes a record that lives at least `ttl` milliseconds longer, and never shorter than it would have.
local function write(key, record, fence, kept, ttl)
  local pending = #kept > 0 and table.concat(kept, ',') or '-'
  local left = redis.call('PTTL', key)
  if left > tonumber(ttl) then ttl = left end
  redis.call('SET', key, '1 ' .. record.nonce .. ' ' .. record.seq .. ' ' .. fence .. ' ' .. pending, 'PX', ttl)
end

-- A hash, or none: what is of another kind is none of ours.
local function hash(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'hash' then return redis.call('HGETALL', key) end
  if kind ~= 'none' then redis.call('DEL', key) end
  return {}
end

-- Says something on the bus, and tells who was there to hear it: how many listened, and the list of names.
local function say(publish, channel, message, nodes)
  local audience = hash(nodes)
  table.insert(audience, 1, string.format('%d', redis.call(publish, channel, message)))
  return audience
end
