-- Shared by all scripts: reads and writes tag records, `1 NONCE SEQ FENCE PENDING`, and publishes.
-- With a secret, a nonce is sealed: `NONCE.STEP.MAC`, with `~HALF` behind it after a soft purge. The
-- scripts cannot make a seal: the nonces that they get are sealed for one step, or bare. To readers
-- with the secret, a record with a bare nonce is as good as absent.

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The step of the latest purge. It starts from the clock, so that after a loss it never falls
-- behind a value that it had before.
local function step(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'string' and kind ~= 'none' then redis.call('DEL', key) end
  local seq = redis.call('GET', key)
  -- Microseconds until the year 2255: below that, two numbers of Lua are equal only if they are the
  -- same. Other values are malformed, as in `step_from`.
  if not seq or not string.match(seq, '^%d+$') or #seq > 16 or tonumber(seq) > 9000000000000000 then
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

local function is_sealed(nonce)
  return string.find(nonce, '.', 1, true) ~= nil
end

-- The nonce that entries record: without its seal.
local function bare(nonce)
  local half = string.match(nonce, '~(%x+)$')
  return half and string.sub(nonce, 1, 16) .. half or string.sub(nonce, 1, 32)
end

-- Reads a record; nil if there is none that was written under this fence.
local function read(key, fence)
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'string' then
    if kind ~= 'none' then redis.call('DEL', key) end
    return nil
  end
  local value = redis.call('GET', key)
  local nonce, seq, by, pending = string.match(value, '^1 (%x[%x.~]+) (%d+) (%S+) (%S+)$')
  if not nonce or not string.match(bare(nonce), '^%x+$') or #bare(nonce) ~= 32 or by ~= fence then
    return nil
  end
  return { nonce = nonce, seq = seq, pending = pending }
end

-- Whether there is a record, and its nonce is sealed if and only if this one is.
local function is_like(record, nonce)
  return record ~= nil and is_sealed(record.nonce) == is_sealed(nonce)
end

-- The nonce after a soft purge: the first half stays; the second half is the time and the step, so
-- that no two are equal.
local function soft_nonce(nonce, seq, now)
  local half = string.format('%011x%05x', now, tonumber(seq) % 1048576)
  if is_sealed(nonce) then return string.match(nonce, '^[^~]+') .. '~' .. half end
  return string.sub(nonce, 1, 16) .. half
end

-- The pending mutations except this one.
local function without(pending, id)
  local kept = {}
  for item in string.gmatch(pending, '[^,]+') do
    local name = string.match(item, '^(.*):%d+:%a$')
    if name and name ~= id then kept[#kept + 1] = item end
  end
  return kept
end

-- The pending mutations before their deadline.
local function in_progress(pending, now)
  local kept = {}
  for _, item in ipairs(pending) do
    if tonumber(string.match(item, ':(%d+):%a$')) >= now then kept[#kept + 1] = item end
  end
  return kept
end

-- Writes a record that lives at least `ttl` milliseconds, and at least as long as it would have.
local function write(key, record, fence, mutations, ttl)
  local pending = #mutations > 0 and table.concat(mutations, ',') or '-'
  local left = redis.call('PTTL', key)
  if left > tonumber(ttl) then ttl = left end
  local value = table.concat({ '1', record.nonce, record.seq, fence, pending }, ' ')
  redis.call('SET', key, value, 'PX', ttl)
end

-- Reads a hash. A key of another type is deleted: it cannot be ours.
local function hash(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'hash' then return redis.call('HGETALL', key) end
  if kind ~= 'none' then redis.call('DEL', key) end
  return {}
end

-- Makes a new generation, which ends all entries.
local function renew(seq, gen, fresh)
  redis.pcall('INCR', seq)
  local set = redis.pcall('SET', gen, fresh)
  -- Out of memory: an absent generation proves nothing either.
  if set['err'] then redis.call('DEL', gen) end
end

-- Notes the time of this clock, by which entries are dated. If the clock has gone back, they would
-- seem younger than they are: a new generation ends them all.
local function watch_clock(key, seq, gen, fresh, tolerance, ttl)
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'string' and kind ~= 'none' then redis.call('DEL', key) end
  local now = now_ms()
  local latest = tonumber(redis.call('GET', key) or '') or 0
  if now + tonumber(tolerance) < latest then
    latest = now
    renew(seq, gen, fresh)
  end
  redis.pcall('SET', key, string.format('%d', math.max(now, latest)), 'PX', ttl)
end

-- Notes in the list of peers that its sidecars speak this protocol: the field `-` holds the number,
-- and since when another one was spoken as well. Sidecars of before protocol 1 remove the field with
-- each heartbeat, those of a later one write another number. Neither may know how the tags of this
-- one are spelled, so each sight of them makes a new generation, and so does their end.
-- Returns `mixed` while one of them may be there: for two leases after it was seen; else `alone`.
local function watch_protocol(nodes, listed, lease, seq, gen, fresh, protocol)
  local now, longest, noted, has_peers = now_ms(), tonumber(lease), '', false
  for at = 1, #listed, 2 do
    local name, value = listed[at], listed[at + 1]
    if name == '-' then
      noted = value
    elseif value ~= '0' then
      has_peers = true
      longest = math.max(longest, math.min(tonumber(value) or 0, 60000))
    end
  end
  local number, since = string.match(noted, '^(%d+) ?(%d*)$')
  if number == protocol and since == '' then return 'alone' end
  local age = number == protocol and now - tonumber(since)
  -- A time to come is that of a clock which was set back since.
  if age and age >= 0 and age <= 2 * longest then return 'mixed' end
  local is_over = age and age >= 0
  renew(seq, gen, fresh)
  -- Where no peer is listed either, the list is new, or was lost.
  local alone = is_over or not has_peers
  redis.pcall('HSET', nodes, '-', alone and protocol or protocol .. ' ' .. string.format('%d', now))
  return alone and 'alone' or 'mixed'
end

-- Publishes a message. Returns who could receive it: the number of subscribers, and the list of
-- peers. With the step of a hard purge, the message says it too: seals of before are worth nothing.
local function publish(command, channel, message, nodes, seq)
  if seq then message = string.sub(message, 1, -2) .. ',"seq":' .. seq .. '}' end
  local subscribers = hash(nodes)
  table.insert(subscribers, 1, string.format('%d', redis.call(command, channel, message)))
  return subscribers
end
