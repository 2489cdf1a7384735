-- Forget a response that only an older copy of Redis takes for a running one: PostgreSQL has its end.
local tenant, response, thread, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv, resp = conv_key(tenant, thread), resp_key(tenant, response)
if redis.call('HGET', resp, 'token') ~= token then return 0 end
local idempotency = redis.call('HGET', resp, 'idempotency')
if idempotency and idempotency ~= '' then
  local key = 'idem:' .. tenant .. ':' .. idempotency
  redis.call('EXPIRE', key, redis.call('HGET', key, 'seconds') or 1)
end
redis.call('DEL', resp, log_key(tenant, response))
redis.call('ZREM', 'running', tenant .. ':' .. response)
local state = redis.call('HMGET', conv, 'lock', 'new', 'unstored')
if state[1] ~= response then return 1 end
if state[2] then
  redis.call('DEL', conv, items_key(tenant, thread))
  return 1
end
redis.call('HDEL', conv, 'lock', 'token', 'deadline')
if state[3] == '0' then
  redis.call('EXPIRE', conv, ARGV[5])
  redis.call('EXPIRE', items_key(tenant, thread), ARGV[5])
end
return 1
