-- Ask whoever runs a response to stop; its next flush hears of it. Answers 1, or 0 when it does not run.
local tenant, response = ARGV[1], ARGV[2]
local resp = resp_key(tenant, response)
if redis.call('HGET', resp, 'status') ~= 'in_progress' then return 0 end
redis.call('HSET', resp, 'cancel', '1')
return 1
