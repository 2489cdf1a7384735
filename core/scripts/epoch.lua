-- Nothing may use a Redis whose queue has no epoch: it was wiped under our feet.
if redis.call('EXISTS', META) == 0 then return redis.error_reply('EPOCH the queue has none') end
