-- The next conversations of a tenant of which PostgreSQL lacks something, behind `after` in the order of their ids: some
-- `count`, less when what PostgreSQL may lack of their items comes to `max_bytes` before. 0: without items.
-- Answers {more (1 or 0), {id, 'ok', created, metadata, since, {items}}, {id, 'gone'}, {id, 'doubtful'}, …}.
local tenant, after, order, count, max_bytes = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local STEP = 20
-- No item can stand there, so nothing is lacking.
local BEYOND_ALL = '9223372036854775807'
local names
if order == 'desc' then
  names = redis.call('ZRANGE', unstored_key(tenant), after == '' and '+' or '(' .. after, '-', 'BYLEX', 'REV', 'LIMIT', 0, count)
else
  names = redis.call('ZRANGE', unstored_key(tenant), after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, count)
end

local bytes = 0
local function items_since(name, since)
  local found, last = {}, -1
  while true do
    local part = redis.call('LRANGE', items_key(tenant, name), last - STEP + 1, last)
    for index = #part, 1, -1 do
      local position, item = string.match(part[index], '^(%d+) (.*)$')
      if tonumber(position) < since then return found end
      found[#found + 1] = item
      bytes = bytes + #item
    end
    if #part < STEP then return found end
    last = last - STEP
  end
end

local found = {#names == count and 1 or 0}
for index, name in ipairs(names) do
  local state = redis.call('HMGET', conv_key(tenant, name), 'deleted', 'created', 'metadata', 'epoch', 'since')
  if state[1] then
    found[#found + 1] = {name, 'gone'}
  elseif doubtful(state[4]) then
    found[#found + 1] = {name, 'doubtful'}
  else
    local items = {}
    if max_bytes > 0 and state[5] then items = items_since(name, tonumber(state[5])) end
    found[#found + 1] = {name, 'ok', state[2] or '0', state[3] or '{}', state[5] or BEYOND_ALL, items}
    if max_bytes > 0 and bytes >= max_bytes and index < #names then
      found[1] = 1
      break
    end
  end
end
return found
