-- A response as Redis has it: {status, thread, body, request, first, end, input_count, input}, each false when absent,
-- or {'gone'} or {'cold'}.
local tenant, response = ARGV[1], ARGV[2]
local known = redis.call('HMGET', resp_key(tenant, response), 'status', 'thread', 'body', 'request', 'first', 'end',
  'input_count', 'input')
if not known[1] then return {'cold'} end
if known[1] == 'deleted' or redis.call('HEXISTS', conv_key(tenant, known[2]), 'deleted') == 1 then return {'gone'} end
return known
