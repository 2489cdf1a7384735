-- Running responses whose lock has expired, the oldest first; at most `limit`.
local lock_ms, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
-- A clock that went back would keep a dead holder's lock for as long; a living one renews it before this ends.
for _, member in ipairs(redis.call('ZRANGE', 'running', '(' .. text(now + lock_ms), '+inf', 'BYSCORE')) do
  redis.call('ZADD', 'running', text(now + lock_ms), member)
end
return redis.call('ZRANGE', 'running', '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit)
