-- Decides whether the response of a fill may be stored. Checks all its tags, including those named
-- by the response, and creates absent records for the next fill.
-- KEYS: seq, gen, tags...
-- ARGV: seq and gen before the fill, record ttl, fence, then per tag: the nonce before the fill or
--       `-`, a fresh nonce, bare or sealed for that seq, and a sealed nonce that the caller does not
--       accept (or `-`): such a record is as good as absent
-- Returns the clock and the nonces for the stamp; nil if anything was purged since, or the present
-- step if that has kept a sealed nonce from being written.
local seq0, ttl, fence = tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4]
local now, seq = now_ms(), step(KEYS[1])
local kind = redis.call('TYPE', KEYS[2])['ok']
local clean = kind == 'string' and redis.call('GET', KEYS[2]) == ARGV[2]
local reply, unsealed = { string.format('%d', now) }, false
for at = 3, #KEYS do
  local known, fresh, refused = ARGV[3 * at - 4], ARGV[3 * at - 3], ARGV[3 * at - 2]
  local record = read(KEYS[at], fence)
  local pending = without(record and record.pending or '-', '')
  -- A reader settles a mutation past its deadline, and publishes that.
  if #in_progress(pending, now) < #pending then clean = false end
  if not is_like(record, fresh) or record.nonce == refused then
    -- It was purged and then evicted, or the tag was never used.
    if known ~= '-' or tonumber(seq) ~= seq0 then clean = false end
    if is_sealed(fresh) and tonumber(seq) ~= seq0 then
      unsealed = true
    else
      write(KEYS[at], { nonce = fresh, seq = seq }, fence, pending, ttl)
    end
    reply[#reply + 1] = fresh
  else
    if known ~= '-' then
      if bare(record.nonce) ~= known then clean = false end
    elseif tonumber(record.seq) > seq0 then
      clean = false
    end
    if redis.call('PTTL', KEYS[at]) < tonumber(ttl) then redis.call('PEXPIRE', KEYS[at], ttl) end
    reply[#reply + 1] = record.nonce
  end
end
if clean then return reply end
if unsealed then return seq end
return nil
