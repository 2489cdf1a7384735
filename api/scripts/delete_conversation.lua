-- Replace a conversation by a tombstone that outlives every late entry of it.
-- Answers {'ok', '', receipt}, {'gone'} or {'cold'}.
local tenant, thread, token, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'lock', 'last')
if written(token) then return {'ok'} end
if state[1] then return {'gone'} end
if not state[2] then return {'cold'} end
remember(token)
enqueue(tenant, thread, next_position(state[4]), entry)
if state[3] then drop_running(tenant, state[3]) end
redis.call('DEL', conv, list, load_key(tenant, thread))
-- Its time to live begins when the worker has stored the delete.
redis.call('HSET', conv, 'deleted', '1')
note_unstored(tenant, thread)
ring()
return {'ok', '', receipt()}
