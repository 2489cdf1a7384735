-- Show a finished response again that Redis had acknowledged and lacks now; its entries were put back before.
-- An older copy of Redis may think that it still runs. Answers 1, or 0 when it is there already or was deleted.
local tenant, response, thread, status, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local first, last, input_count, input = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local resp, conv = resp_key(tenant, response), conv_key(tenant, thread)
local known = redis.call('HMGET', resp, 'status', 'idempotency')
if known[1] and known[1] ~= 'in_progress' then return 0 end
redis.call('HSET', resp, 'status', status, 'thread', thread, 'body', body, 'first', first, 'end', last,
  'input_count', input_count, 'epoch', redis.call('HGET', META, 'epoch'))
local idempotency_key = 'idem:' .. tenant .. ':' .. (known[2] or '')
if first ~= '' then
  redis.call('EXPIRE', idempotency_key, redis.call('HGET', idempotency_key, 'seconds') or '0')
else
  redis.call('HSET', resp, 'input', input)
  redis.call('DEL', idempotency_key)
end
redis.call('HDEL', resp, 'request', 'idempotency', 'cancel', 'again', 'takeups', 'taken', 'limit')
redis.call('PERSIST', resp)
redis.call('ZREM', 'running', tenant .. ':' .. response)
redis.call('DEL', log_key(tenant, response))
if redis.call('HGET', conv, 'lock') == response then redis.call('HDEL', conv, 'lock', 'token', 'deadline', 'new') end
if first ~= '' and redis.call('HGET', conv, 'last') == last then redis.call('HSET', conv, 'last_response', response) end
return 1
