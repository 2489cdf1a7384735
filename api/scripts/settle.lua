-- Correct the tokens that were taken for a request that is not stored by those that it used.
local tenant, token, tokens_limit, over = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if written(token) then return 1 end
remember(token)
rate_settle(tenant, tokens_limit, over)
return 1
