-- Take over a response whose lock has expired, so that exactly one pod closes it or runs it again. The former holder is
-- fenced off from here on. Answers {'no'} or {'ok', thread, request, {log entries}, doubtful, again, cancelled, takeups};
-- doubtful is 1 when Redis lost something since it began, so it may have ended long ago.
local tenant, response, token, lock_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local force = ARGV[5] == '1'

local resp = resp_key(tenant, response)
local member = tenant .. ':' .. response
local deadline = redis.call('ZSCORE', 'running', member)
local known = redis.call('HMGET', resp, 'status', 'thread', 'request', 'token', 'epoch', 'again', 'cancel')
-- A retry whose first reply was lost finds its own token.
if not deadline or (not force and tonumber(deadline) > now_ms() and known[4] ~= token) then return {'no'} end
local conv = conv_key(tenant, known[2] or '')
if not known[3] or redis.call('HGET', conv, 'lock') ~= response then
  redis.call('ZREM', 'running', member)
  return {'no'}
end
local renewed = text(now_ms() + lock_ms)
redis.call('HSET', conv, 'token', token, 'deadline', renewed)
redis.call('ZADD', 'running', renewed, member)
local takeups = redis.call('HINCRBY', resp, 'takeups', known[4] == token and 0 or 1)
redis.call('HSET', resp, 'token', token)
return {'ok', known[2], known[3], redis.call('XRANGE', log_key(tenant, response), '-', '+'),
  doubtful(known[5]) and 1 or 0, known[6] or '', known[7] and 1 or 0, takeups}
