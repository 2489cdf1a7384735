-- Give a lease back, claimable at once. Answers 1, or 0 to who does not hold it any more.
-- `ended`: its PostgreSQL transaction is over for certain, so that nobody needs to end the session.
-- `failed`: the range itself is to blame, which counts towards halving it.
local epoch, token, from, to, ended, failed = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local member = from .. ':' .. to .. ':' .. token
local deadline = redis.call('ZSCORE', LEASES, member)
if redis.call('HGET', META, 'epoch') ~= epoch or not deadline then return 0 end
-- A retry whose first reply was lost.
if deadline == '0' then return 1 end
redis.call('ZADD', LEASES, 0, member)
if failed ~= '1' then
  redis.call('HINCRBY', ATTEMPTS, from, -1)
  -- Its holder lives.
  redis.call('HDEL', ALONE, from)
end
if ended == '1' then
  local former = string.match(redis.call('HGET', SESSIONS, token) or '', '(%S+)$') or '-'
  redis.call('HSET', SESSIONS, token, from .. ' ' .. to .. ' - ' .. former)
end
ring()
return 1
