-- Bind the queue to this run of Redis. One that was started again, wiped, restored from a copy or replaced by its replica
-- may lack what it had acknowledged, so the queue gets a new epoch; offsets go on from what is there.
-- Answers {epoch, start, checked, ends} when the epoch is this run's (now), or {} when it must be raised and no
-- `candidate` was given. `ends` tells where the last epochs ended: 'EPOCH:TAIL' each.
local candidate, floor = ARGV[1], ARGV[2]
local KNOWN_ENDS = 8
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')

local state = redis.call('HMGET', META, 'epoch', 'run', 'start', 'head', 'next', 'floor', 'ends', 'checked')
if state[1] and state[2] == run then return {state[1], state[3], state[8] or '0', state[7]} end
if candidate == '' then return {} end

local head = tonumber(state[4] or '0')
local tail = head + redis.call('LLEN', QUEUE)
local epoch = text(math.max(tonumber(candidate), tonumber(state[1] or '0') + 1))

local function report(its_epoch, start, its_tail, first, beyond)
  local words = {its_epoch, text(start), text(its_tail), text(first), text(beyond)}
  redis.call('SADD', REPORTS, table.concat(words, ' '))
end

local ends = {}
if state[1] then
  -- What is still queued is not lost; in the new epoch, what is acknowledged behind the head is stored already.
  report(state[1], tonumber(state[3] or state[4]), tail, head, tail)
  for ended in string.gmatch(state[7] or '', '%S+') do ends[#ends + 1] = ended end
  ends[#ends + 1] = state[1] .. ':' .. text(tail)
  if #ends > KNOWN_ENDS then table.remove(ends, 1) end
end
report(epoch, head, head, head, head)
local acked = redis.call('HGETALL', ACKED)
for index = 1, #acked, 2 do report(epoch, head, head, tonumber(acked[index]), tonumber(acked[index + 1])) end

-- Nobody's lease counts any more. That is no failure of its range, and the next holder ends the session of the last.
for _, member in ipairs(redis.call('ZRANGE', LEASES, '(0', '+inf', 'BYSCORE')) do
  redis.call('ZADD', LEASES, 0, member)
  redis.call('HINCRBY', ATTEMPTS, string.match(member, '^%d+'), -1)
  redis.call('HDEL', ALONE, string.match(member, '^%d+'))
end
local known_ends = table.concat(ends, ' ')
redis.call('HSET', META, 'epoch', epoch, 'run', run, 'start', text(head), 'head', text(head),
  'next', state[5] or '0', 'floor', text(math.max(tonumber(floor), tonumber(state[6] or '0'))), 'ends', known_ends)
redis.call('HDEL', META, 'checked')
return {epoch, text(head), '0', known_ends}
