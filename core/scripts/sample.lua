-- What an operator watches, in one step; it changes nothing.
-- Answers {depth, µs since the oldest entry was acknowledged, leases held, leases free, ranges that failed, bytes that
-- Redis uses, its limit}.
local now = now_us()
local age = 0
local oldest = redis.call('LINDEX', QUEUE, 0)
if oldest then
  local since = tonumber(string.match(oldest, '^%S+ %S+ %S+ (%d+) ') or '0')
  -- A response that left its conversation as it was has no position, but tells when it was created.
  if since == 0 then since = tonumber(string.match(oldest, '"created_at":(%d+)') or '0') * 1000000 end
  if since > 0 then age = math.max(0, now - since) end
end
local held = redis.call('ZCOUNT', LEASES, '(' .. text(now / 1000), '+inf')
local memory = redis.call('INFO', 'memory')
return {redis.call('LLEN', QUEUE), text(age), held, redis.call('ZCARD', LEASES) - held, redis.call('HLEN', ATTEMPTS),
  string.match(memory, 'used_memory:(%d+)') or '0', string.match(memory, 'maxmemory:(%d+)') or '0'}
