-- The first of a turn's two round trips: take the lock, keep the request under the response's id, read the history.
-- Changes nothing of the conversation itself. A pod that remembers the first `known_count` items of the list's
-- `known_generation` gets only those behind them.
-- Answers {'ok', thread, {items}, generation, count of items left out, what the tenant's limits leave} or {reason, detail}.
local tenant, response, token, lock_ms, queue_limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local thread, previous, previous_thread, previous_end = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local new_thread, request = ARGV[10], ARGV[11]
local idempotency, request_hash, idempotency_seconds = ARGV[12], ARGV[13], ARGV[14]
local known_generation, known_count = ARGV[15], tonumber(ARGV[16])
local requests_limit, tokens_limit, wanted = tonumber(ARGV[17]), tonumber(ARGV[18]), tonumber(ARGV[19])
local limited = requests_limit > 0 or tokens_limit > 0

-- This very begin again: its first reply was lost, or it comes so late that its turn has ended already.
local earlier = redis.call('HMGET', resp_key(tenant, response), 'token', 'thread')
if earlier[1] then
  local held = redis.call('HMGET', conv_key(tenant, earlier[2]), 'lock', 'token', 'generation')
  if earlier[1] ~= token or held[1] ~= response or held[2] ~= token then return {'late'} end
  return {'ok', earlier[2], redis.call('LRANGE', items_key(tenant, earlier[2]), 0, -1), held[3], 0, ''}
end

local idempotency_key = 'idem:' .. tenant .. ':' .. idempotency
if idempotency ~= '' then
  local seen = redis.call('HMGET', idempotency_key, 'hash', 'response')
  if seen[1] and seen[1] ~= request_hash then return {'idempotency_key_reused', seen[2] or ''} end
  if seen[1] then return {'replay', seen[2]} end
end
if redis.call('LLEN', QUEUE) >= queue_limit then return {'queue_full'} end
if limited and not rate_admits(tenant, requests_limit, tokens_limit, wanted) then
  return {'rate_limited', rate_told(tenant, requests_limit, tokens_limit)}
end

local epoch = redis.call('HGET', META, 'epoch')
local upto = false
if previous ~= '' then
  local known = redis.call('HMGET', resp_key(tenant, previous), 'status', 'thread', 'end')
  if not known[1] and previous_thread == '' then return {'response_cold'} end
  local status = known[1] or 'stored'
  if status == 'deleted' then return {'response_gone'} end
  if status == 'in_progress' or status == 'queued' then return {'response_running'} end
  thread = known[2] or previous_thread
  upto = known[3] or previous_end
  if upto == '' then return {'response_empty'} end
end

local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local items, left_out = {}, 0
local generation = token
local fork, stale = false, false
if thread == '' then
  thread = new_thread
  conv, list = conv_key(tenant, thread), items_key(tenant, thread)
  redis.call('HSET', conv, 'last', '0', 'len', '0', 'unstored', '0', 'new', '1', 'generation', generation,
    'epoch', epoch)
else
  local state = redis.call('HMGET', conv, 'deleted', 'len', 'lock', 'deadline', 'last_response',
    'generation', 'stale', 'epoch')
  if state[1] then return {'gone'} end
  if not state[2] or redis.call('LLEN', list) ~= tonumber(state[2]) then
    redis.call('DEL', conv, list)
    return {'cold', thread}
  end
  if doubtful(state[8]) then return {'cold', thread} end
  local locked = state[3]
  if upto then
    -- Only the last response of a thread of its own is continued in place; anything else is a branch.
    fork = locked or state[5] ~= previous or string.sub(thread, 1, 4) ~= 'thr_'
  elseif locked then
    if tonumber(state[4]) > now_ms() then return {'locked', state[3]} end
    return {'expired', state[3]}
  end
  stale = state[7]
  if not fork then
    generation = state[6]
    if generation == known_generation and tonumber(state[2]) >= known_count then left_out = known_count end
  end
  items = redis.call('LRANGE', list, left_out, -1)
end

if fork then
  local prefix = {}
  local limit = tonumber(upto)
  for _, item in ipairs(items) do
    if tonumber(string.match(item, '^%d+')) <= limit then prefix[#prefix + 1] = item end
  end
  redis.call('HSET', conv_key(tenant, new_thread), 'last', upto, 'len', #prefix, 'unstored', '0', 'new', '1',
    'parent', thread, 'parent_position', upto, 'generation', generation, 'epoch', epoch)
  -- What the parent should no longer have, its branch should not either.
  if stale then redis.call('HSET', conv_key(tenant, new_thread), 'stale', '1') end
  thread, items = new_thread, prefix
  conv, list = conv_key(tenant, thread), items_key(tenant, thread)
  redis.call('DEL', list)
  for first = 1, #prefix, 1000 do
    redis.call('RPUSH', list, unpack(prefix, first, math.min(first + 999, #prefix)))
  end
end

local deadline = text(now_ms() + lock_ms)
redis.call('HSET', conv, 'lock', response, 'token', token, 'deadline', deadline)
redis.call('PERSIST', conv)
redis.call('PERSIST', list)
redis.call('DEL', load_key(tenant, thread))
redis.call('HSET', resp_key(tenant, response), 'status', 'in_progress', 'thread', thread, 'token', token,
  'request', request, 'idempotency', idempotency, 'epoch', epoch)
redis.call('ZADD', 'running', deadline, tenant .. ':' .. response)
if idempotency ~= '' then
  redis.call('HSET', idempotency_key, 'hash', request_hash, 'response', response, 'seconds', idempotency_seconds)
end
local left = ''
if limited then
  rate_take(tenant, requests_limit, tokens_limit, wanted)
  left = rate_told(tenant, requests_limit, tokens_limit)
end
-- What finish corrects.
if tokens_limit > 0 then redis.call('HSET', resp_key(tenant, response), 'taken', text(wanted), 'limit', text(tokens_limit)) end
return {'ok', thread, items, generation, left_out, left}
