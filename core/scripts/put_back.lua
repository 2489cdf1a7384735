-- Queue entries again that Redis had acknowledged and lacks now, and show them to readers. `first` is the offset that the
-- first of them had in its epoch. What PostgreSQL has already is absorbed there by its identity.
-- The hot copies that this makes or changes are not whole: they are read anew before anybody uses them.
-- Answers {epoch, offset behind the last of them}: where they stand now.
local epoch, start, first, generation = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local FIRST_ENTRY = 5

local function position_of(element) return tonumber(string.match(element, '^%d+')) end

-- Into the list by its position, unless it stands there already.
local function insert(list, position, element)
  local length = redis.call('LLEN', list)
  for index = length - 1, 0, -1 do
    local there = redis.call('LINDEX', list, index)
    local at = position_of(there)
    if at == position then return 0 end
    if at < position then
      redis.call('LINSERT', list, 'AFTER', there, element)
      return 1
    end
  end
  redis.call('LPUSH', list, element)
  return 1
end

local function show(tenant, conversation, position, kind, id, extra, body)
  local conv, list = conv_key(tenant, conversation), items_key(tenant, conversation)
  -- An older copy of Redis may take what has ended since then for running.
  local lock = redis.call('HGET', conv, 'lock')
  if kind == 'delete_conversation' then
    if lock then drop_running(tenant, lock) end
    redis.call('DEL', conv, list, load_key(tenant, conversation))
    redis.call('HSET', conv, 'deleted', '1')
  end
  if kind == 'delete_response' then
    if lock == id then
      drop_running(tenant, id)
      redis.call('HDEL', conv, 'lock', 'token', 'deadline', 'new')
    end
    redis.call('DEL', resp_key(tenant, id), log_key(tenant, id))
    redis.call('HSET', resp_key(tenant, id), 'status', 'deleted', 'thread', conversation)
  end
  -- Nobody counts it, so it makes no hot copy.
  if string.find(extra, 'uncounted', 1, true) then return end
  local state = redis.call('HMGET', conv, 'deleted', 'len', 'last')
  if state[1] then
    if kind == 'delete_conversation' then note_unstored(tenant, conversation) end
    return
  end
  if not state[2] or redis.call('LLEN', list) ~= tonumber(state[2]) then
    redis.call('DEL', conv, list)
    redis.call('HSET', conv, 'len', '0', 'last', '0', 'unstored', '0')
    state[2], state[3] = '0', '0'
  end
  if kind == 'item' then
    local added = insert(list, tonumber(position), position .. ' ' .. body)
    redis.call('HINCRBY', conv, 'len', added)
  elseif kind == 'conversation' then
    local created, metadata = string.match(body, '^{"created_at":(%d+),"metadata":(.*),"hidden":')
    redis.call('HSET', conv, 'created', created, 'metadata', metadata)
    local parent, upto = string.match(body, '"parent":"([^"]+)","parent_position":(%d+)}$')
    if parent then redis.call('HSET', conv, 'parent', parent, 'parent_position', upto) end
  elseif kind == 'delete_response' then
    local first, last = string.match(extra, '(%d+) (%d+)')
    if first then redis.call('HINCRBY', conv, 'len', -drop_span(conv, list, first, last)) end
  elseif kind == 'delete_item' then
    note_dropped(conv, id)
    for _, element in ipairs(redis.call('LRANGE', list, 0, -1)) do
      if string.find(element, id, 1, true) and cjson.decode(string.match(element, '^%d+ (.*)$')).id == id then
        redis.call('HINCRBY', conv, 'len', -redis.call('LREM', list, 1, element))
      end
    end
  end
  redis.call('HSET', conv, 'last', text(math.max(tonumber(state[3]), tonumber(position))), 'epoch', '0', 'stale', '1',
    'generation', generation)
  redis.call('HINCRBY', conv, 'unstored', 1)
  note_unstored(tenant, conversation)
  if kind == 'item' then note_items(tenant, conversation, tonumber(position)) end
  if kind == 'delete_item' then note_items(tenant, conversation, 0) end
  redis.call('PERSIST', conv)
  redis.call('PERSIST', list)
  redis.call('DEL', load_key(tenant, conversation))
end

local count = #ARGV - FIRST_ENTRY + 1
for index = FIRST_ENTRY, #ARGV do
  local entry = ARGV[index]
  redis.call('RPUSH', QUEUE, entry)
  local header, body = string.match(entry, '^([^\n]*)\n(.*)$')
  local tenant, conversation, position, kind, id, extra = string.match(header, '^1 (%S+) (%S+) (%d+) (%S+) (%S+)(.*)$')
  show(tenant, conversation, position, kind, id, extra, body)
end
note_loss()
redis.call('SADD', REPORTS, table.concat({epoch, start, text(first + count), text(first), text(first + count)}, ' '))
ring()
local meta = redis.call('HMGET', META, 'epoch', 'head')
return {meta[1], tonumber(meta[2]) + redis.call('LLEN', QUEUE)}
