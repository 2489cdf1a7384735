-- Complete a hot copy that is older than a loss of Redis: what PostgreSQL has, and by position what is queued beside it.
-- Only while the loader's own ticket stands. Answers 1 when the conversation can be used again.
local tenant, thread, ticket, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local created, metadata, last, last_response, gone = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local deleted_count = tonumber(ARGV[10])
local FIRST_DELETED = 11
local FIRST_ITEM = FIRST_DELETED + 2 * deleted_count
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'epoch', 'unstored', 'last', 'created', 'metadata', 'last_response', 'lock')
if redis.call('GET', load_key(tenant, thread)) ~= ticket or state[1] or not state[3] then return 0 end
redis.call('DEL', load_key(tenant, thread))
if gone == '1' then
  if state[8] then drop_running(tenant, state[8]) end
  redis.call('DEL', conv, list)
  redis.call('HSET', conv, 'deleted', '1')
  redis.call('EXPIRE', conv, TOMBSTONE_SECONDS)
  redis.call('ZREM', unstored_key(tenant), thread)
  return 1
end

-- (kind, id): items, and the responses that took theirs along.
local deleted, spans = {}, {}
for index = FIRST_DELETED, FIRST_ITEM - 1, 2 do
  if ARGV[index] == 'item' then
    deleted[ARGV[index + 1]] = true
  else
    local span = redis.call('HMGET', resp_key(tenant, ARGV[index + 1]), 'first', 'end')
    if tonumber(span[1] or '') and string.sub(thread, 1, 4) == 'thr_' then
      spans[#spans + 1] = {tonumber(span[1]), tonumber(span[2])}
    end
  end
end

local function dropped(position, element)
  for _, span in ipairs(spans) do
    if position >= span[1] and position <= span[2] then return true end
  end
  return next(deleted) ~= nil and deleted[cjson.decode(string.match(element, '^%d+ (.*)$')).id] ~= nil
end

-- Deletes that are queued, of which PostgreSQL does not know.
local queued_deletes = redis.call('HGET', conv, 'dropped') or ''
for word in string.gmatch(queued_deletes, '%S+') do
  local first, last_of_span = string.match(word, '^(%d+):(%d+)$')
  if first then
    spans[#spans + 1] = {tonumber(first), tonumber(last_of_span)}
  else
    deleted[word] = true
  end
end

local elements, known = {}, {}
for index = FIRST_ITEM, #ARGV do
  if queued_deletes == '' or not dropped(tonumber(string.match(ARGV[index], '^%d+')), ARGV[index]) then
    elements[#elements + 1] = ARGV[index]
  end
  known[string.match(ARGV[index], '^%d+')] = true
end
local queued = tonumber(state[3]) > 0
if queued then
  for _, element in ipairs(redis.call('LRANGE', list, 0, -1)) do
    local position = string.match(element, '^%d+')
    if not known[position] and not dropped(tonumber(position), element) then elements[#elements + 1] = element end
  end
  local function at(element) return tonumber(string.match(element, '^%d+')) end
  table.sort(elements, function(one, other) return at(one) < at(other) end)
end
redis.call('DEL', list)
for first = 1, #elements, 1000 do
  redis.call('RPUSH', list, unpack(elements, first, math.min(first + 999, #elements)))
end
local newer = queued and tonumber(state[4]) > tonumber(last)
redis.call('HSET', conv, 'len', #elements, 'last', text(math.max(tonumber(state[4]), tonumber(last))),
  'generation', ticket, 'epoch', redis.call('HGET', META, 'epoch'), 'last_response',
  newer and state[7] or last_response)
if created ~= '' and not (newer and state[5]) then redis.call('HSET', conv, 'created', created, 'metadata', metadata) end
-- Once all of it is stored it is read anew.
redis.call('HSET', conv, 'stale', '1')
if not queued and not state[8] then
  redis.call('HDEL', conv, 'stale')
  redis.call('EXPIRE', conv, seconds)
  redis.call('EXPIRE', list, seconds)
end
return 1
