-- The hot copy of a conversation, without changing it.
-- Answers {'ok', {hash fields}, {items}}, {'gone'}, {'cold'} or {'doubtful'}.
local tenant, thread, with_items = ARGV[1], ARGV[2], ARGV[3]
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'created', 'metadata', 'lock', 'epoch')
if state[1] then return {'gone'} end
if not state[2] or redis.call('LLEN', list) ~= tonumber(state[2]) then return {'cold'} end
if doubtful(state[6]) then return {'doubtful'} end
local items = {}
if with_items == '1' then items = redis.call('LRANGE', list, 0, -1) end
return {'ok', {state[3], state[4], state[5]}, items}
