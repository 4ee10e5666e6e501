-- Gives the tags new nonces: entries that carry one of them are no longer current. Ends the
-- mutation, and every mutation past its deadline, because this purge covers it too. A soft purge
-- keeps the first half of a nonce, which tells readers that entries with the tag are stale, not
-- invalid. Where a mutation past its deadline may have been committed, or there is no record, the
-- purge is a hard one.
-- KEYS: seq, nodes, marks (or seq again), tags...
-- ARGV: id, record ttl, fence, publish command, channel, message, soft or hard, a fresh nonce per
--       tag
local id, ttl, fence, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local now, seq = now_ms(), next_step(KEYS[1])
for at = 4, #KEYS do
  local record, nonce = read(KEYS[at], fence), ARGV[at + 4]
  local pending = without(record and record.pending or '-', id)
  local remaining = in_progress(pending, now)
  if kind == 'soft' and record and #remaining == #pending then
    nonce = soft_nonce(record.nonce, seq, now)
  end
  write(KEYS[at], { nonce = nonce, seq = seq }, fence, remaining, ttl)
end
if KEYS[3] ~= KEYS[1] then redis.call('HDEL', KEYS[3], id) end
return publish(ARGV[4], ARGV[5], ARGV[6], KEYS[2], kind == 'hard' and seq)
