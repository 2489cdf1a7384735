-- What a process knows of an epoch that has ended: where it began, and behind which entry it had come.
-- `lost`: Redis lacks something of it, so hot copies from before the present epoch may be incomplete.
-- `checked`: PostgreSQL was asked too, so nobody else needs to.
local epoch, start, tail, lost, checked = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if epoch ~= '' then redis.call('SADD', REPORTS, table.concat({epoch, start, tail, start, start}, ' ')) end
if lost == '1' then note_loss() end
if checked == '1' then redis.call('HSET', META, 'checked', '1') end
