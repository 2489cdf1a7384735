-- Give up a running response in order, so that any pod takes it over after a pause (ms): no death is counted.
-- Fenced by the lock's token. Answers 1, or 0 when somebody else holds it or has ended it.
local tenant, thread, response, token, pause_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local conv = conv_key(tenant, thread)
local state = redis.call('HMGET', conv, 'lock', 'token')
if state[1] ~= response or state[2] ~= token then return 0 end
-- A flush that is still on its way finds itself fenced off.
local free_at = pause_ms > 0 and text(now_ms() + pause_ms) or '0'
redis.call('HSET', conv, 'token', '', 'deadline', free_at)
redis.call('HINCRBY', resp_key(tenant, response), 'takeups', -1)
redis.call('ZADD', 'running', free_at, tenant .. ':' .. response)
return 1
