-- Forgets a peer, and its marks, which were purged before. With a message: withdraws our own id,
-- and publishes the message.
-- KEYS: nodes, marks   ARGV: peer id, publish command, channel, message (or empty)
hash(KEYS[1])
redis.call('HDEL', KEYS[1], ARGV[1])
if ARGV[4] == '' then
  redis.call('DEL', KEYS[2])
else
  redis.call(ARGV[2], ARGV[3], ARGV[4])
end
return 1
