-- Renew a lease. Answers 1, or 0 to who does not hold it any more.
local epoch, token, from, to, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local member = from .. ':' .. to .. ':' .. token
local deadline = redis.call('ZSCORE', LEASES, member)
-- 0: released meanwhile.
if redis.call('HGET', META, 'epoch') ~= epoch or not deadline or deadline == '0' then return 0 end
redis.call('ZADD', LEASES, text(now_ms() + lease_ms), member)
return 1
