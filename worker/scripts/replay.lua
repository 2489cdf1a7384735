-- Queue a dead letter's entry again. The worker makes its conversation read anew once it is stored.
local tenant, conversation, entry = ARGV[1], ARGV[2], ARGV[3]
local conv = conv_key(tenant, conversation)
redis.call('RPUSH', QUEUE, entry)
if redis.call('HEXISTS', conv, 'unstored') == 1 then
  redis.call('HINCRBY', conv, 'unstored', 1)
  redis.call('PERSIST', conv)
  redis.call('PERSIST', items_key(tenant, conversation))
end
ring()
