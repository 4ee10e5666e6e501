-- Returns the replication id, which fences records, the role, Redis's clock in milliseconds, and
-- whether the primary was promoted.
local info = redis.call('INFO', 'replication')
-- A primary that was a replica before remembers the replication id of its former primary.
local before = string.match(info, 'master_replid2:(%x+)') or '0'
local promoted = string.match(before, '^0+$') and '0' or '1'
return {
  string.match(info, 'master_replid:(%x+)') or 'unknown',
  string.match(info, 'role:(%a+)') or 'unknown',
  string.format('%d', now_ms()),
  promoted,
}
