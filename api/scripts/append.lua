-- Change a conversation without a turn: create it, add items, replace its metadata. Refused while a turn runs.
-- Answers {'ok', created, receipt} or {reason, detail}.
local tenant, thread, create, queue_limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local created, metadata, token = ARGV[5], ARGV[6], ARGV[7]
local FIRST_ITEM = 8
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'lock', 'last', 'created', 'epoch')
if written(token) then return {'ok', state[5]} end
if redis.call('LLEN', QUEUE) >= queue_limit then return {'queue_full'} end
if state[1] then return {'gone'} end
if create == '1' then
  state[2], state[4] = '0', '0'
elseif not state[2] or redis.call('LLEN', list) ~= tonumber(state[2]) then
  redis.call('DEL', conv, list)
  return {'cold'}
elseif doubtful(state[6]) then
  return {'cold'}
elseif state[3] then
  return {'locked', state[3]}
else
  created = state[5]
end
remember(token)
if create == '1' then redis.call('HSET', conv, 'generation', token, 'epoch', redis.call('HGET', META, 'epoch')) end
local position = next_position(state[4])
if metadata ~= '' then
  enqueue(tenant, thread, position, 'conversation ' .. thread .. '\n{"created_at":' .. created .. ',"metadata":' .. metadata
    .. ',"hidden":false,"parent":null,"parent_position":null}')
  redis.call('HSET', conv, 'created', created, 'metadata', metadata)
  position = position + 1
end
for index = FIRST_ITEM, #ARGV do
  local tail = ARGV[index]
  enqueue(tenant, thread, position, tail)
  redis.call('RPUSH', list, text(position) .. ' ' .. string.sub(tail, string.find(tail, '\n', 1, true) + 1))
  position = position + 1
end
redis.call('HSET', conv, 'last', text(position - 1), 'len', tonumber(state[2]) + #ARGV - FIRST_ITEM + 1)
redis.call('HINCRBY', conv, 'unstored', #pushed)
redis.call('PERSIST', conv)
redis.call('PERSIST', list)
redis.call('DEL', load_key(tenant, thread))
ring()
return {'ok', created, receipt()}
