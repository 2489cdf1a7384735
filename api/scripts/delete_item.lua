-- Take one item out of a conversation. Refused while a turn runs.
-- Answers {'ok', '', receipt}, {'no_item'} or {reason, detail}.
local tenant, thread, token, item, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'lock', 'last', 'epoch')
if written(token) then return {'ok'} end
if state[1] then return {'gone'} end
if not state[2] or redis.call('LLEN', list) ~= tonumber(state[2]) then
  redis.call('DEL', conv, list)
  return {'cold'}
end
if doubtful(state[5]) then return {'cold'} end
if state[3] then return {'locked', state[3]} end
local found = false
for _, element in ipairs(redis.call('LRANGE', list, 0, -1)) do
  -- Items may speak of each other's ids; the JSON decoder settles it.
  if string.find(element, item, 1, true) and cjson.decode(string.match(element, '^%d+ (.*)$')).id == item then
    found = element
    break
  end
end
if not found then return {'no_item'} end
remember(token)
local position = next_position(state[4])
enqueue(tenant, thread, position, entry)
redis.call('LREM', list, 1, found)
redis.call('HSET', conv, 'last', text(position), 'len', tonumber(state[2]) - 1, 'generation', token)
note_dropped(conv, item)
redis.call('HINCRBY', conv, 'unstored', 1)
note_items(tenant, thread, 0)
redis.call('PERSIST', conv)
redis.call('PERSIST', list)
redis.call('DEL', load_key(tenant, thread))
ring()
return {'ok', '', receipt()}
