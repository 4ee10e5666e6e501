-- May a fill be stored? Looks at all its tags, those that its response named too; seeds absent records for the next fill.
-- KEYS: seq, gen, tags...
-- ARGV: seq at the start, gen at the start, record ttl, fence, then per tag: the nonce at the start or `-`, a fresh nonce
-- Returns nil when something was purged meanwhile, else the nonces to record.
local seq0, ttl, fence = tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4]
local now, seq, nonces = now_ms(), step(KEYS[1]), {}
local kind = redis.call('TYPE', KEYS[2])['ok']
local clean = kind == 'string' and redis.call('GET', KEYS[2]) == ARGV[2]
for at = 3, #KEYS do
  local known, fresh = ARGV[2 * at - 1], ARGV[2 * at]
  local record = read(KEYS[at], fence)
  if not record then
    -- It may have been purged and then evicted; or nobody has used it yet.
    if known ~= '-' or tonumber(seq) ~= seq0 then clean = false end
    record = { nonce = fresh, seq = seq, pending = '-' }
    write(KEYS[at], record, fence, {}, ttl)
  else
    local pending = without(record.pending, '')
    -- A mutation past its deadline is for a reader to settle, which tells the others.
    if #under_way(pending, now) < #pending then clean = false end
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
