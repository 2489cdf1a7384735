-- Shared by every script. Numbers are doubles here: whatever leaves as a position is formatted with %.0f.
local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

local function conv_key(tenant, id) return 'conv:' .. tenant .. ':' .. id end
local function items_key(tenant, id) return 'items:' .. tenant .. ':' .. id end
local function resp_key(tenant, id) return 'resp:' .. tenant .. ':' .. id end
local function log_key(tenant, id) return 'log:' .. tenant .. ':' .. id end
local function load_key(tenant, id) return 'load:' .. tenant .. ':' .. id end

-- The conversations of a tenant of which PostgreSQL lacks something, in the order of their ids: what its lists lack.
local function unstored_key(tenant) return 'unstored:' .. tenant end

local function note_unstored(tenant, id)
  if string.sub(id, 1, 5) == 'conv_' then redis.call('ZADD', unstored_key(tenant), 0, id) end
end

-- `since`: the lowest position of those of its items that are queued; 0 when one was taken out, so that all of them count.
local function note_items(tenant, id, since)
  if string.sub(id, 1, 5) ~= 'conv_' then return end
  local conv = conv_key(tenant, id)
  local known = tonumber(redis.call('HGET', conv, 'since') or '')
  if not known or since < known then redis.call('HSET', conv, 'since', text(since)) end
  note_unstored(tenant, id)
end

-- A running response whose conversation is deleted: it will not come to an end that could free its keys.
local function drop_running(tenant, response)
  local resp = resp_key(tenant, response)
  local idempotency = redis.call('HGET', resp, 'idempotency')
  if idempotency and idempotency ~= '' then redis.call('DEL', 'idem:' .. tenant .. ':' .. idempotency) end
  redis.call('DEL', resp, log_key(tenant, response))
  redis.call('ZREM', 'running', tenant .. ':' .. response)
end

-- A deleted thing must stay unknown for longer than any event log or late entry of it can live.
local TOMBSTONE_SECONDS = 86400

-- No client of Redis sends a call again after so long.
local WROTE_MS = 60000

-- Positions grow in the order of acknowledgement, also after Redis lost its memory (floor) and when its clock goes back.
local function next_position(last)
  local floor = tonumber(redis.call('HGET', META, 'floor') or '0')
  return math.max(tonumber(last) + 1, now_us(), floor)
end

-- Append one entry; `tail` is everything behind the position (core/entry.py).
local pushed = {}
local function enqueue(tenant, conversation, position, tail)
  pushed[#pushed + 1] = '1 ' .. tenant .. ' ' .. conversation .. ' ' .. text(position) .. ' ' .. tail
  redis.call('RPUSH', QUEUE, pushed[#pushed])
end

-- What the caller remembers for a while, should Redis lose it: {epoch, offset behind the last entry, {entries}}.
local function receipt()
  local meta = redis.call('HMGET', META, 'epoch', 'head')
  return {meta[1], tonumber(meta[2]) + redis.call('LLEN', QUEUE), pushed}
end

-- Redis has lost something since this hot copy was made, so PostgreSQL must be asked before anybody uses it.
local function doubtful(epoch)
  local lost = redis.call('HGET', META, 'lost')
  return lost and tonumber(epoch or '0') < tonumber(lost)
end

-- Redis lacks something of before this epoch. Until every process has looked, which each does once a second, what they
-- remember may not be back yet: `lost_ms` tells since when to wait for that.
local function note_loss()
  local epoch = redis.call('HGET', META, 'epoch')
  if redis.call('HGET', META, 'lost') ~= epoch then redis.call('HSET', META, 'lost', epoch, 'lost_ms', text(now_ms())) end
end

-- What is deleted of a conversation and PostgreSQL has not deleted yet, so that nobody brings it back from there: items by
-- id, responses by their span FIRST:LAST.
local function note_dropped(conv, word)
  redis.call('HSET', conv, 'dropped', (redis.call('HGET', conv, 'dropped') or '') .. ' ' .. word)
end

-- In a hidden thread nothing else shows a response's items, so they go along. Answers how many went.
local function drop_span(conv, list, first, last)
  local dropped = 0
  for _, element in ipairs(redis.call('LRANGE', list, 0, -1)) do
    local at = tonumber(string.match(element, '^%d+'))
    if at >= tonumber(first) and at <= tonumber(last) then dropped = dropped + redis.call('LREM', list, 1, element) end
  end
  note_dropped(conv, first .. ':' .. last)
  return dropped
end

-- Wake an idle worker. One ring is enough: a busy worker finds the queue by itself.
local function ring()
  if redis.call('LLEN', BELL) == 0 then redis.call('RPUSH', BELL, '1') end
end

-- Whether this very call was carried out already: its reply was lost and the client sent it again.
local function written(token)
  return redis.call('ZSCORE', WROTE, token) ~= false
end

-- A refusal is never remembered: sent again, it must not be told as done. In one key without a time to live: what has a
-- short one is evicted before all else.
local function remember(token)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', WROTE, '-inf', text(now - WROTE_MS))
  redis.call('ZADD', WROTE, text(now), token)
end
