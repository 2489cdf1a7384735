-- The next items of a hot conversation behind a position: as many as have some `max_bytes`, at least one.
-- Answers {'ok', {items}}, {'gone'}, {'cold'} or {'doubtful'}; no items: there are none behind it.
local tenant, thread, after, max_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local STEP = 20
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
local state = redis.call('HMGET', conv, 'deleted', 'len', 'epoch')
if state[1] then return {'gone'} end
local length = redis.call('LLEN', list)
if not state[2] or length ~= tonumber(state[2]) then return {'cold'} end
if doubtful(state[3]) then return {'doubtful'} end

-- Items stand in the order of their positions.
local low, high = 0, length
while low < high do
  local middle = math.floor((low + high) / 2)
  if tonumber(string.match(redis.call('LINDEX', list, middle), '^%d+')) > after then high = middle else low = middle + 1 end
end

local items, bytes = {}, 0
while low < length and bytes < max_bytes do
  for _, item in ipairs(redis.call('LRANGE', list, low, low + STEP - 1)) do
    if bytes < max_bytes then
      items[#items + 1] = item
      bytes = bytes + #item
    end
  end
  low = low + STEP
end
return {'ok', items}
