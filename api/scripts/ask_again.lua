-- A client asks once more, with the same key and body, for what may have lost its pod: keep what runs it again.
-- Answers 1, or 0 when it has ended.
local tenant, response, body = ARGV[1], ARGV[2], ARGV[3]
local resp = resp_key(tenant, response)
if redis.call('HGET', resp, 'status') ~= 'in_progress' then return 0 end
redis.call('HSET', resp, 'again', body)
return 1
