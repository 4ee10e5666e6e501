-- Withdraws the summary of a sidecar that ends.
-- KEYS: its slot   ARGV: owner
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return ''
