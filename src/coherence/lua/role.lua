-- Who and when: the replication id that fences records, its role, and Redis's clock in milliseconds.
local info = redis.call('INFO', 'replication')
-- A primary that was a replica remembers whose.
local before = string.match(info, 'master_replid2:(%x+)') or '0'
local promoted = string.match(before, '^0+$') and '0' or '1'
return { string.match(info, 'master_replid:(%x+)') or 'unknown', string.match(info, 'role:(%a+)') or 'unknown', string.format('%d', now_ms()), promoted }
