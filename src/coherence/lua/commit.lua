-- Decides whether the response of a fill may be stored. Checks all its tags, including those named
-- by the response, and creates absent records for the next fill.
-- KEYS: seq, gen, tags...
-- ARGV: seq and gen before the fill, record ttl, fence, then per tag: the nonce before the fill or
--       `-`, and a fresh nonce
-- Returns nil if anything was purged since, else the nonces for the stamp.
local seq0, ttl, fence = tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4]
local now, seq, nonces = now_ms(), step(KEYS[1]), {}
local kind = redis.call('TYPE', KEYS[2])['ok']
local clean = kind == 'string' and redis.call('GET', KEYS[2]) == ARGV[2]
for at = 3, #KEYS do
  local known, fresh = ARGV[2 * at - 1], ARGV[2 * at]
  local record = read(KEYS[at], fence)
  if not record then
    -- It was purged and then evicted, or the tag was never used.
    if known ~= '-' or tonumber(seq) ~= seq0 then clean = false end
    record = { nonce = fresh, seq = seq, pending = '-' }
    write(KEYS[at], record, fence, {}, ttl)
  else
    local pending = without(record.pending, '')
    -- A reader settles a mutation past its deadline, and publishes that.
    if #in_progress(pending, now) < #pending then clean = false end
    if known ~= '-' then
      if record.nonce ~= known then clean = false end
    elseif tonumber(record.seq) > seq0 then
      clean = false
    end
    if redis.call('PTTL', KEYS[at]) < tonumber(ttl) then redis.call('PEXPIRE', KEYS[at], ttl) end
  end
  nonces[#nonces + 1] = record.nonce
end
if clean then return nonces end
return nil
