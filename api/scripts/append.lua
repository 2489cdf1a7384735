-- Change a conversation without a turn: create it, add items, replace its metadata. Refused while a turn runs.
-- What is done stands under the client's Idempotency-Key from the same step on, with the ids that were made for it.
-- Answers {'ok', created, receipt}, {'replay', 'CREATED IDS'} or {reason, detail}.
local tenant, thread, create, queue_limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local created, metadata, token = ARGV[5], ARGV[6], ARGV[7]
local idempotency, request_hash, ids, idempotency_seconds = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local trace = ARGV[12]
local FIRST_ITEM = 13
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'lock', 'last', 'created', 'epoch')
-- What created it may have been lost with Redis.
state[5] = state[5] or '0'
if written(token) then return {'ok', state[5]} end
local idempotency_key = 'idem:' .. tenant .. ':' .. idempotency
if idempotency ~= '' then
  local seen = redis.call('HMGET', idempotency_key, 'hash', 'created', 'ids')
  if seen[1] and seen[1] ~= request_hash then return {'idempotency_key_reused'} end
  if seen[1] then return {'replay', seen[2] .. ' ' .. seen[3]} end
end
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
  enqueue(tenant, thread, position, 'conversation ' .. thread .. trace .. '\n{"created_at":' .. created .. ',"metadata":' .. metadata
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
note_unstored(tenant, thread)
if #ARGV >= FIRST_ITEM then note_items(tenant, thread, position - (#ARGV - FIRST_ITEM + 1)) end
redis.call('PERSIST', conv)
redis.call('PERSIST', list)
redis.call('DEL', load_key(tenant, thread))
if idempotency ~= '' then
  redis.call('HSET', idempotency_key, 'hash', request_hash, 'created', created, 'ids', ids)
  redis.call('EXPIRE', idempotency_key, idempotency_seconds)
end
ring()
return {'ok', created, receipt()}
