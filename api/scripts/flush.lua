-- While a turn lasts: log its new events, renew the lock, and tell whether somebody asked to cancel.
-- Answers 'ok', 'cancel', 'lost' or 'gone'.
local tenant, thread, response, token, lock_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local log, last_sequence = ARGV[6], tonumber(ARGV[7])

local conv = conv_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'lock', 'token')
if state[1] then return 'gone' end
if state[2] ~= response or state[3] ~= token then return 'lost' end
if log ~= '' then
  local name, id = log_key(tenant, response), last_sequence + 1
  local newest = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
  -- A retry whose first reply was lost finds its events logged.
  if not newest or tonumber(string.match(newest[1], '^%d+')) < id then
    redis.call('XADD', name, text(id) .. '-0', 'e', log)
  end
end
local deadline = text(now_ms() + lock_ms)
redis.call('HSET', conv, 'deadline', deadline)
redis.call('ZADD', 'running', deadline, tenant .. ':' .. response)
if redis.call('HEXISTS', resp_key(tenant, response), 'cancel') == 1 then return 'cancel' end
return 'ok'
