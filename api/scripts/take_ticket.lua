-- The right to rebuild a conversation from PostgreSQL. Answers {1}, or {0} while another loader has it, and also when there
-- is nothing to rebuild any more: it was loaded, or deleted, since the caller looked. Half a conversation is none.
-- {2, parent, its position}: Redis has lost something, what is left of the conversation here must be completed.
-- For a moment after that nobody loads: what other processes remember comes back first.
local AFTER_LOSS_MS = 2000
local tenant, thread, ticket, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'epoch', 'parent', 'parent_position')
local loss = redis.call('HMGET', META, 'epoch', 'lost', 'lost_ms')
local since_loss = now_ms() - tonumber(loss[3] or '0')
if loss[2] == loss[1] and since_loss >= 0 and since_loss < AFTER_LOSS_MS then return {0} end
local whole = state[2] and redis.call('LLEN', list) == tonumber(state[2])
if state[1] or (whole and not doubtful(state[3])) then return {0} end
if not whole then redis.call('DEL', conv, list) end
local load = load_key(tenant, thread)
-- A call whose first reply was lost finds its own ticket.
if not redis.call('SET', load, ticket, 'NX', 'EX', seconds) and redis.call('GET', load) ~= ticket then return {0} end
if not whole then return {1} end
return {2, state[4] or '', state[5] or ''}
