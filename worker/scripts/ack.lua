-- A range is in PostgreSQL: trim it, or remember it until what lies before it is there too, and let what it touched expire.
-- Answers 1, or 0 to who does not hold the lease any more.
local epoch, token, from, to, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local cursor = 5

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local member = from .. ':' .. to .. ':' .. token
if redis.call('HGET', META, 'epoch') ~= epoch or not redis.call('ZSCORE', LEASES, member) then return 0 end
redis.call('ZREM', LEASES, member)
redis.call('HDEL', SESSIONS, token)
redis.call('HDEL', ATTEMPTS, from)
redis.call('HDEL', ALONE, from)
local head = redis.call('HGET', META, 'head')
if from ~= head then
  redis.call('HSET', ACKED, from, to)
else
  local reached = to
  local beyond = redis.call('HGET', ACKED, reached)
  while beyond do
    redis.call('HDEL', ACKED, reached)
    reached = beyond
    beyond = redis.call('HGET', ACKED, reached)
  end
  redis.call('LTRIM', QUEUE, text(tonumber(reached) - tonumber(head)), -1)
  redis.call('HSET', META, 'head', reached)
end

-- (tenant, conversation, entries of it): what is stored completely and not in use may be evicted.
for _ = 1, tonumber(take()) do
  local tenant, conversation, count = take(), take(), take()
  local conv = conv_key(tenant, conversation)
  local state = redis.call('HMGET', conv, 'unstored', 'deleted', 'lock', 'stale')
  if state[1] and not state[2] then
    local unstored = math.max(tonumber(state[1]) - tonumber(count), 0)
    redis.call('HSET', conv, 'unstored', text(unstored))
    -- Who completes a doubtful copy may have asked PostgreSQL before all of this was there.
    if unstored == 0 then redis.call('DEL', load_key(tenant, conversation)) end
    if unstored == 0 then
      redis.call('ZREM', unstored_key(tenant), conversation)
      redis.call('HDEL', conv, 'since', 'dropped')
    end
    if unstored == 0 and not state[3] and state[4] then
      redis.call('DEL', conv, items_key(tenant, conversation))
    elseif unstored == 0 and not state[3] then
      redis.call('EXPIRE', conv, seconds)
      redis.call('EXPIRE', items_key(tenant, conversation), seconds)
    end
  end
end

-- (tenant, response): stored.
for _ = 1, tonumber(take()) do
  local resp = resp_key(take(), take())
  if redis.call('HGET', resp, 'status') ~= 'deleted' then redis.call('EXPIRE', resp, seconds) end
end

-- (tenant, conversation), (tenant, response): their deletes are stored; the tombstones outlive every late reader.
for _ = 1, tonumber(take()) do
  local tenant, conversation = take(), take()
  redis.call('EXPIRE', conv_key(tenant, conversation), TOMBSTONE_SECONDS)
  redis.call('ZREM', unstored_key(tenant), conversation)
end
for _ = 1, tonumber(take()) do redis.call('EXPIRE', resp_key(take(), take()), TOMBSTONE_SECONDS) end

-- (tenant, response): gone from PostgreSQL with what was deleted, so gone from here.
for _ = 1, tonumber(take()) do
  local tenant, response = take(), take()
  local resp = resp_key(tenant, response)
  if redis.call('HGET', resp, 'status') ~= 'deleted' then redis.call('DEL', resp) end
  redis.call('DEL', log_key(tenant, response))
end

-- (tenant, conversation): PostgreSQL has changed behind the hot copy, which is read again at its next use. One that is in
-- use, or has more than PostgreSQL, goes with the acknowledgement that ends this.
for _ = 1, tonumber(take()) do
  local tenant, conversation = take(), take()
  local conv = conv_key(tenant, conversation)
  local state = redis.call('HMGET', conv, 'unstored', 'deleted', 'lock')
  if state[1] == '0' and not state[2] and not state[3] then
    redis.call('DEL', conv, items_key(tenant, conversation))
  elseif state[1] and not state[2] then
    redis.call('HSET', conv, 'stale', '1')
  end
  redis.call('DEL', load_key(tenant, conversation))
end
return 1
