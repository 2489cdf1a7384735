-- Count a request that is not stored. Answers {1 or 0, what is left}; 0: it has to wait.
local tenant, token = ARGV[1], ARGV[2]
local requests_limit, tokens_limit, wanted = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local done = written(token)
if not done and not rate_admits(tenant, requests_limit, tokens_limit, wanted) then
  return {0, rate_told(tenant, requests_limit, tokens_limit)}
end
if not done then
  remember(token)
  rate_take(tenant, requests_limit, tokens_limit, wanted)
end
return {1, rate_told(tenant, requests_limit, tokens_limit)}
