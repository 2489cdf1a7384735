-- Give up a running response in order, so that another pod takes it over at its next look: no death is counted.
-- Fenced by the lock's token. Answers 1, or 0 when somebody else holds it or has ended it.
local tenant, thread, response, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv = conv_key(tenant, thread)
local state = redis.call('HMGET', conv, 'lock', 'token')
if state[1] ~= response or state[2] ~= token then return 0 end
-- A flush that is still on its way finds itself fenced off.
redis.call('HSET', conv, 'token', '', 'deadline', '0')
redis.call('HINCRBY', resp_key(tenant, response), 'takeups', -1)
redis.call('ZADD', 'running', 0, tenant .. ':' .. response)
return 1
