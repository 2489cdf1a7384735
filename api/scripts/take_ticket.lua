-- The right to rebuild a conversation from PostgreSQL. Answers 1, or 0 while another loader has it, and also when there is
-- nothing to rebuild any more: it was loaded, or deleted, since the caller looked. Half a conversation is none.
local tenant, thread, ticket, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len')
if state[1] or (state[2] and redis.call('LLEN', list) == tonumber(state[2])) then return 0 end
redis.call('DEL', conv, list)
local load = load_key(tenant, thread)
-- A call whose first reply was lost finds its own ticket.
if redis.call('SET', load, ticket, 'NX', 'EX', seconds) or redis.call('GET', load) == ticket then return 1 end
return 0
