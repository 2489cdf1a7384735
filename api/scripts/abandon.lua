-- Give back what a begin took whose reply never came: its client has been told that nothing was begun. Whoever looks next
-- runs it, should the client have come back for it.
-- Answers 1, or 0 when there is nothing (any more, or yet: the begin may still be on its way).
local tenant, response, token = ARGV[1], ARGV[2], ARGV[3]
local resp = resp_key(tenant, response)
local known = redis.call('HMGET', resp, 'status', 'token', 'thread', 'idempotency', 'again')
if known[1] ~= 'in_progress' or known[2] ~= token then return 0 end
local conv = conv_key(tenant, known[3])
local state = redis.call('HMGET', conv, 'lock', 'token', 'new', 'unstored')
if known[5] and state[1] == response and state[2] == token then
  -- Its client asked again with the same key meanwhile, and may have been told that it runs: so it must.
  redis.call('HSET', conv, 'token', '', 'deadline', '0')
  redis.call('HSET', resp, 'token', '')
  redis.call('HINCRBY', resp, 'takeups', -1)
  redis.call('ZADD', 'running', 0, tenant .. ':' .. response)
  return 1
end
if state[1] == response and state[2] == token then
  if state[3] then
    redis.call('DEL', conv, items_key(tenant, known[3]))
  else
    redis.call('HDEL', conv, 'lock', 'token', 'deadline')
    if state[4] == '0' then
      redis.call('EXPIRE', conv, ARGV[4])
      redis.call('EXPIRE', items_key(tenant, known[3]), ARGV[4])
    end
  end
end
if known[4] ~= '' then redis.call('DEL', 'idem:' .. tenant .. ':' .. known[4]) end
redis.call('DEL', resp)
redis.call('ZREM', 'running', tenant .. ':' .. response)
return 1
