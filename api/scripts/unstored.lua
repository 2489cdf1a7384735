-- The next conversations of a tenant of which PostgreSQL lacks something, behind `after` in the order of their ids.
-- Answers {more (1 or 0), {id, 'ok', created, metadata}, {id, 'gone'}, {id, 'doubtful'}, …}.
local tenant, after, order, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local names
if order == 'desc' then
  names = redis.call('ZRANGE', unstored_key(tenant), after == '' and '+' or '(' .. after, '-', 'BYLEX', 'REV', 'LIMIT', 0, count)
else
  names = redis.call('ZRANGE', unstored_key(tenant), after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, count)
end
local found = {#names == count and 1 or 0}
for _, name in ipairs(names) do
  local state = redis.call('HMGET', conv_key(tenant, name), 'deleted', 'created', 'metadata', 'epoch')
  if state[1] then
    found[#found + 1] = {name, 'gone'}
  elseif doubtful(state[4]) then
    found[#found + 1] = {name, 'doubtful'}
  else
    found[#found + 1] = {name, 'ok', state[2] or '0', state[3] or '{}'}
  end
end
return found
