-- Replace a response by a tombstone. In a hidden thread its items go along, for nothing else shows them.
-- `thread`, `first` and `last` come from PostgreSQL when Redis no longer knows the response.
-- Answers {'ok', '', receipt}, {'running'} or {'gone'}.
local tenant, response, token, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local thread, first, last = ARGV[5], ARGV[6], ARGV[7]
local resp = resp_key(tenant, response)
local known = redis.call('HMGET', resp, 'status', 'thread', 'first', 'end')
if written(token) then return {'ok'} end
if known[1] == 'deleted' then return {'gone'} end
if known[1] == 'in_progress' or known[1] == 'queued' then return {'running'} end
if known[1] then thread, first, last = known[2], known[3] or '', known[4] end
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'last')
if state[1] then return {'gone'} end
remember(token)
local position = now_us()
if state[2] then
  position = next_position(state[3])
  local kept = tonumber(state[2])
  if first ~= '' and string.sub(thread, 1, 4) == 'thr_' then
    kept = kept - drop_span(conv, list, first, last)
    entry = string.gsub(entry, '\n$', ' ' .. first .. ' ' .. last .. '\n')
  end
  redis.call('HSET', conv, 'last', text(position), 'len', kept, 'generation', token)
  redis.call('HINCRBY', conv, 'unstored', 1)
  redis.call('PERSIST', conv)
  redis.call('PERSIST', list)
end
-- Without a hot copy nobody counts it.
if not state[2] then entry = string.gsub(entry, '\n$', ' uncounted\n') end
enqueue(tenant, thread, position, entry)
redis.call('DEL', load_key(tenant, thread), resp, log_key(tenant, response))
-- Its time to live begins when the worker has stored the delete.
redis.call('HSET', resp, 'status', 'deleted', 'thread', thread)
ring()
return {'ok', '', receipt()}
