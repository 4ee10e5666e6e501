-- The app refused the mutation: it is no longer pending, and nothing is purged.
-- KEYS: seq, tags...   ARGV: id, record ttl, fence, a fresh nonce per tag
local id, ttl, fence = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
for at = 2, #KEYS do
  local record = read(KEYS[at], fence)
  if record then
    local kept, orphaned = without(record.pending, id, now)
    if orphaned then
      record.nonce, record.seq = ARGV[at + 2], next_step(KEYS[1])
    end
    write(KEYS[at], record, fence, kept, ttl)
  end
end
return 1
