-- Requests and tokens per minute, for the scripts that count them (in front of which this is put).

-- What is left of a tenant's requests and tokens per minute: two buckets that fill all the time and hold a minute's worth.
-- A limit of 0 is none.
local function rate_left(tenant, requests_limit, tokens_limit)
  local state = redis.call('HMGET', 'rate:' .. tenant, 'requests', 'tokens', 'at')
  local passed = now_ms() - tonumber(state[3] or '0')
  -- A clock that went back would else refuse for as long.
  if passed < 0 then passed = 60000 end
  local function left(known, limit)
    return math.min(limit, tonumber(known or limit) + passed * limit / 60000)
  end
  return left(state[1], requests_limit), left(state[2], tokens_limit)
end

local MOST_OWED_MS = 86400000

-- Let the key live until its buckets are full again, when it says nothing more.
local function rate_expire(tenant, requests, requests_limit, tokens, tokens_limit)
  local lacking = 1000
  if requests_limit > 0 then lacking = math.max(lacking, (requests_limit - requests) * 60000 / requests_limit + 1000) end
  if tokens_limit > 0 then lacking = math.max(lacking, (tokens_limit - tokens) * 60000 / tokens_limit + 1000) end
  -- A provider may tell of any number of tokens.
  lacking = math.min(lacking, MOST_OWED_MS)
  if redis.call('PTTL', 'rate:' .. tenant) < lacking then redis.call('PEXPIRE', 'rate:' .. tenant, text(lacking)) end
end

-- Whether there is room for one more request with so many tokens. Who wants more than a minute's worth waits for a full bucket.
local function rate_admits(tenant, requests_limit, tokens_limit, wanted)
  local requests, tokens = rate_left(tenant, requests_limit, tokens_limit)
  if requests_limit > 0 and requests < 1 then return false end
  return tokens_limit == 0 or tokens >= math.min(wanted, tokens_limit)
end

local function rate_take(tenant, requests_limit, tokens_limit, wanted)
  local requests, tokens = rate_left(tenant, requests_limit, tokens_limit)
  requests = requests_limit > 0 and requests - 1 or 0
  tokens = tokens_limit > 0 and tokens - wanted or 0
  redis.call('HSET', 'rate:' .. tenant, 'requests', requests, 'tokens', tokens, 'at', text(now_ms()))
  rate_expire(tenant, requests, requests_limit, tokens, tokens_limit)
end

local function rate_told(tenant, requests_limit, tokens_limit)
  return string.format('%.3f %.3f', rate_left(tenant, requests_limit, tokens_limit))
end

-- Correct what was taken by what was used: also below 0, so that a long answer is paid for by waiting.
local function rate_settle(tenant, tokens_limit, over)
  local key = 'rate:' .. tenant
  if redis.call('HSETNX', key, 'tokens', tokens_limit) == 1 then redis.call('HSET', key, 'at', text(now_ms())) end
  local tokens = tonumber(redis.call('HINCRBYFLOAT', key, 'tokens', -over))
  rate_expire(tenant, 0, 0, tokens, tokens_limit)
end
