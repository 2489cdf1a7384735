-- The right to rebuild a conversation from PostgreSQL. Answers {1}, or {0} while another loader has it, and also when there
-- is nothing to rebuild any more: it was loaded, or deleted, since the caller looked. Half a conversation is none.
-- {2, parent, its position}: Redis has lost something, what is left of the conversation here must be completed.
local tenant, thread, ticket, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'epoch', 'parent', 'parent_position')
local whole = state[2] and redis.call('LLEN', list) == tonumber(state[2])
if state[1] or (whole and not doubtful(state[3])) then return {0} end
if not whole then redis.call('DEL', conv, list) end
local load = load_key(tenant, thread)
-- A call whose first reply was lost finds its own ticket.
if not redis.call('SET', load, ticket, 'NX', 'EX', seconds) and redis.call('GET', load) ~= ticket then return {0} end
if not whole then return {1} end
return {2, state[4] or '', state[5] or ''}
