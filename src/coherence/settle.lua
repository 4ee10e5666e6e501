-- Mutations past their deadline are taken as committed: their sidecar died.
-- KEYS: seq, tags...   ARGV: id (none), record ttl, fence, a fresh nonce per tag
local ttl, fence = ARGV[2], ARGV[3]
local now = now_ms()
for at = 2, #KEYS do
  local record = read(KEYS[at], fence)
  if record then
    local kept, orphaned = without(record.pending, '', now)
    if orphaned then
      record.nonce, record.seq = ARGV[at + 2], next_step(KEYS[1])
      write(KEYS[at], record, fence, kept, ttl)
    end
  end
end
return 1
