-- Who and when: the replication id that fences records, its role, and Redis's clock in milliseconds.
local info = redis.call('INFO', 'replication')
return { string.match(info, 'master_replid:(%x+)') or 'unknown', string.match(info, 'role:(%a+)') or 'unknown', string.format('%d', now_ms()) }
