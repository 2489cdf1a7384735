-- The second round trip: append input and output, enqueue both with the response, log the last events, free the lock.
-- Fenced by the lock's token. Answers {'ok', receipt}, {'lost'} (somebody else holds or has closed it) or {'gone'} (deleted
-- meanwhile).
local tenant, thread, response, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local status, body, entry = ARGV[5], ARGV[6], ARGV[7]
local log, last_sequence, log_seconds = ARGV[8], ARGV[9], ARGV[10]
local input_count, input, used = ARGV[11], ARGV[12], tonumber(ARGV[13])
local FIRST_ITEM = 14

local conv, list, resp = conv_key(tenant, thread), items_key(tenant, thread), resp_key(tenant, response)
local state = redis.call('HMGET', conv, 'deleted', 'lock', 'token', 'last', 'len', 'new', 'parent', 'parent_position')
if state[1] then
  redis.call('ZREM', 'running', tenant .. ':' .. response)
  return {'gone'}
end
if state[2] ~= response or state[3] ~= token then
  local done = redis.call('HMGET', resp, 'status', 'token')
  -- A retry whose first reply was lost.
  if done[1] == status and done[2] == token then return {'ok'} end
  return {'lost'}
end

local known = redis.call('HMGET', resp, 'idempotency', 'taken', 'limit')
local idempotency = known[1]
local idempotency_key = 'idem:' .. tenant .. ':' .. (idempotency or '')
if used and known[2] then rate_settle(tenant, tonumber(known[3]), used - tonumber(known[2])) end
local count = #ARGV - FIRST_ITEM + 1
if count > 0 then
  local position = next_position(state[4])
  local first = text(position)
  if state[6] and state[7] then
    enqueue(tenant, thread, position, 'conversation ' .. thread .. '\n{"created_at":' .. text(math.floor(now_us() / 1000000))
      .. ',"metadata":{},"hidden":true,"parent":"' .. state[7] .. '","parent_position":' .. state[8] .. '}')
  end
  for index = FIRST_ITEM, #ARGV do
    local tail = ARGV[index]
    enqueue(tenant, thread, position, tail)
    redis.call('RPUSH', list, text(position) .. ' ' .. string.sub(tail, string.find(tail, '\n', 1, true) + 1))
    position = position + 1
  end
  local last = text(position - 1)
  enqueue(tenant, thread, tonumber(first), entry)
  redis.call('HSET', conv, 'last', last, 'len', tonumber(state[5]) + count, 'last_response', response)
  redis.call('HDEL', conv, 'lock', 'token', 'deadline', 'new')
  redis.call('HINCRBY', conv, 'unstored', #pushed)
  note_items(tenant, thread, tonumber(first))
  redis.call('HSET', resp, 'status', status, 'body', body, 'first', first, 'end', last,
    'input_count', input_count)
  if idempotency ~= '' then
    redis.call('EXPIRE', idempotency_key, redis.call('HGET', idempotency_key, 'seconds') or 1)
  end
else
  -- Nothing was produced: the conversation stays as it was, and a plain retry with the same key may run again.
  enqueue(tenant, thread, 0, entry)
  redis.call('HDEL', conv, 'lock', 'token', 'deadline')
  if state[6] then
    redis.call('DEL', conv, list)
  else
    redis.call('HINCRBY', conv, 'unstored', 1)
  end
  redis.call('HSET', resp, 'status', status, 'body', body, 'first', '', 'end', '', 'input', input)
  if idempotency ~= '' then redis.call('DEL', idempotency_key) end
end
redis.call('HDEL', resp, 'request', 'idempotency', 'cancel', 'again', 'takeups', 'taken', 'limit')
redis.call('ZREM', 'running', tenant .. ':' .. response)
local log_name = log_key(tenant, response)
if log ~= '' then redis.call('XADD', log_name, text(tonumber(last_sequence) + 1) .. '-0', 'e', log) end
redis.call('EXPIRE', log_name, log_seconds)
ring()
return {'ok', receipt()}
