-- Adds a pending mutation to the records of its tags, or moves its deadline. Nonces stay, so hits go on.
-- KEYS: seq, tags...   ARGV: id, milliseconds until the deadline, guard (m or b), record ttl, fence, a fresh nonce per tag
local id, within, guard, ttl, fence = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local now = now_ms()
for at = 2, #KEYS do
  local record = read(KEYS[at], fence) or { nonce = ARGV[at + 4], seq = step(KEYS[1]), pending = '-' }
  local kept, orphaned = without(record.pending, id, now)
  if orphaned then
    record.nonce, record.seq = ARGV[at + 4], next_step(KEYS[1])
  end
  kept[#kept + 1] = id .. ':' .. string.format('%d', now + within) .. ':' .. guard
  write(KEYS[at], record, fence, kept, ttl)
end
return 1
