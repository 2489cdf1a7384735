-- Queue a dead letter's entry again. The worker makes its conversation read anew once it is stored.
-- Without a hot copy nobody counts it, so its acknowledgement must not either: `uncounted` says so in its header.
local tenant, conversation, entry, uncounted = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local conv = conv_key(tenant, conversation)
if redis.call('HEXISTS', conv, 'unstored') == 0 then
  redis.call('RPUSH', QUEUE, uncounted)
else
  redis.call('RPUSH', QUEUE, entry)
  redis.call('HINCRBY', conv, 'unstored', 1)
  redis.call('PERSIST', conv)
  redis.call('PERSIST', items_key(tenant, conversation))
end
ring()
