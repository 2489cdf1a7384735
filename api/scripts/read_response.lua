-- A response as Redis has it: {status, thread, body, request, first, end, input_count, input, logged, doubtful}, each false
-- when absent, or {'gone'} or {'cold'}. logged: 1 when something is logged of a response that still runs. doubtful: 1 when
-- Redis has lost something since it was begun, its end or its delete, say.
local tenant, response = ARGV[1], ARGV[2]
local known = redis.call('HMGET', resp_key(tenant, response), 'status', 'thread', 'body', 'request', 'first', 'end',
  'input_count', 'input', 'epoch')
if not known[1] then return {'cold'} end
if known[1] == 'deleted' or redis.call('HEXISTS', conv_key(tenant, known[2]), 'deleted') == 1 then return {'gone'} end
known[10] = doubtful(known[9]) and 1 or 0
known[9] = not known[3] and redis.call('EXISTS', log_key(tenant, response))
return known
