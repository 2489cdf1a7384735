-- Lease a range of the queue: an expired lease first, else what was never leased. Entries stay in the list.
-- Answers {epoch, start, tail}, and behind it {from, to, failed claims, former session, {entries}} if there is work.
local token, session = ARGV[1], ARGV[2]
local lease_ms, max_entries, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
-- Some eight sessions: by then the first ones have ended by themselves.
local MOST_FORMER = 256
local hot_seconds, max_failures = ARGV[6], tonumber(ARGV[7])

local meta = redis.call('HMGET', META, 'epoch', 'start', 'head', 'next')
local epoch, start, head, next_offset = meta[1], meta[2], tonumber(meta[3]), tonumber(meta[4])
local tail = head + redis.call('LLEN', QUEUE)
local now = now_ms()

local function entries_until(from, to)
  return redis.call('LRANGE', QUEUE, text(from - head), text(to - head - 1))
end

local function lease(from, to, holder, deadline, its_session, former)
  redis.call('ZADD', LEASES, text(deadline), text(from) .. ':' .. text(to) .. ':' .. holder)
  redis.call('HSET', SESSIONS, holder, text(from) .. ' ' .. text(to) .. ' ' .. its_session .. ' ' .. former)
end

local function answer(from, to, former, entries)
  if redis.call('EXISTS', HOT) == 0 then redis.call('RPUSH', HOT, '1') end
  redis.call('EXPIRE', HOT, hot_seconds)
  local failed = tonumber(redis.call('HGET', ATTEMPTS, text(from)) or '0')
  return {epoch, start, tail, from, to, failed, former, entries}
end

-- A clock that went back would keep a dead holder's lease alive for as long; a living one renews it before this ends.
for _, member in ipairs(redis.call('ZRANGE', LEASES, '(' .. text(now + lease_ms), '+inf', 'BYSCORE')) do
  redis.call('ZADD', LEASES, text(now + lease_ms), member)
end

-- A claim whose first reply was lost gets the same range again.
local own = redis.call('HGET', SESSIONS, token)
if own then
  local from, to, former = string.match(own, '^(%d+) (%d+) %S+ (%S+)$')
  from, to = tonumber(from), tonumber(to)
  -- Meanwhile it was given back: by a new epoch, or as the half of what somebody else took over. Whoever takes such a range
  -- counts as one who fails until the range is given back once more.
  if redis.call('ZSCORE', LEASES, text(from) .. ':' .. text(to) .. ':' .. token) == '0' then
    redis.call('HINCRBY', ATTEMPTS, text(from), 1)
  end
  lease(from, to, token, now + lease_ms, session, former)
  return answer(from, to, former, entries_until(from, to))
end

-- What was given back (score 0) comes after what ran out: the holder of that may be stopped inside a transaction on which
-- everybody who takes and gives back the others waits in vain, and only its successor ends its session.
local expired = redis.call('ZRANGE', LEASES, '(0', text(now), 'BYSCORE', 'LIMIT', 0, 1)[1]
  or redis.call('ZRANGE', LEASES, 0, 0, 'BYSCORE', 'LIMIT', 0, 1)[1]
if expired then
  local from, to, holder = string.match(expired, '^(%d+):(%d+):(.+)$')
  from, to = tonumber(from), tonumber(to)
  -- Whoever had it before may have died before ending the sessions of those before them.
  local last, before = string.match(redis.call('HGET', SESSIONS, holder) or '', '^%d+ %d+ (%S+) (%S+)$')
  local former = last or '-'
  for session in string.gmatch(before or '-', '[^,]+') do
    if former == '-' then
      former = session
    elseif session ~= '-' and not string.find(',' .. former .. ',', ',' .. session .. ',', 1, true) then
      former = former .. ',' .. session
    end
  end
  if #former > MOST_FORMER then former = string.match(string.sub(former, 1, MOST_FORMER), '^(.*),') end
  redis.call('ZREM', LEASES, expired)
  redis.call('HDEL', SESSIONS, holder)
  local failed = redis.call('HINCRBY', ATTEMPTS, text(from), 1)
  if failed >= max_failures and to - from > 1 then
    -- One of its entries may kill its holder: narrow it down. Each half gets one more try before it is halved again.
    local middle = from + math.floor((to - from) / 2)
    redis.call('HSET', ATTEMPTS, text(from), max_failures - 1, text(middle), max_failures - 2)
    lease(middle, to, holder, 0, '-', former)
    to = middle
  end
  lease(from, to, token, now + lease_ms, session, former)
  return answer(from, to, former, entries_until(from, to))
end

local from = math.max(next_offset, head)
local limit = math.min(from + max_entries, tail)
if from >= limit then return {epoch, start, tail} end
local entries, bytes, step = {}, 0, 1
local to = from
while to < limit and bytes < max_bytes do
  -- Growing steps: entries may be large, and what lies beyond the limit was read in vain.
  for _, entry in ipairs(entries_until(to, math.min(to + step, limit))) do
    bytes = bytes + #entry
    if to > from and bytes > max_bytes then break end
    entries[#entries + 1] = entry
    to = to + 1
  end
  step = math.min(step * 4, 256)
end
redis.call('HSET', META, 'next', text(to))
lease(from, to, token, now + lease_ms, session, '-')
return answer(from, to, '-', entries)
