-- Note that the last entry of a range that kills its holders is tried with nothing else in its holder's hands.
-- Answers how many such tries have begun before and not come to an end, or nothing to who does not hold the lease any more.
local epoch, token, from, to = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local deadline = redis.call('ZSCORE', LEASES, from .. ':' .. to .. ':' .. token)
if redis.call('HGET', META, 'epoch') ~= epoch or not deadline or deadline == '0' then return false end
-- Noted by token: a call whose first reply was lost is no second try.
local tries = redis.call('HGET', ALONE, from) or ''
if not string.find(tries, token, 1, true) then
  redis.call('HSET', ALONE, from, tries == '' and token or tries .. ' ' .. token)
end
local _, before = string.gsub(tries, '%x+', '')
return string.find(tries, token, 1, true) and before - 1 or before
