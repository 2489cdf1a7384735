-- Put back what PostgreSQL had, only while the loader's own ticket stands: a slow loader must not restore an old state.
-- Answers 1 when the conversation is hot now by this call.
local tenant, thread, ticket, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local created, metadata, last, last_response, hidden = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local FIRST_ITEM = 10
local conv, list = conv_key(tenant, thread), items_key(tenant, thread)
if redis.call('GET', load_key(tenant, thread)) ~= ticket or redis.call('EXISTS', conv, list) > 0 then return 0 end
redis.call('DEL', load_key(tenant, thread))
redis.call('HSET', conv, 'created', created, 'metadata', metadata, 'last', last, 'len', #ARGV - FIRST_ITEM + 1,
  'unstored', '0', 'last_response', last_response, 'generation', ticket, 'epoch', redis.call('HGET', META, 'epoch'))
if hidden == '1' then redis.call('HSET', conv, 'hidden', '1') end
for first = FIRST_ITEM, #ARGV, 1000 do
  redis.call('RPUSH', list, unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('EXPIRE', conv, seconds)
redis.call('EXPIRE', list, seconds)
return 1
