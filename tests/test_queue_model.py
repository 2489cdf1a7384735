"""Every interleaving of claim, ack, extend, release, expiry and loss that hypothesis can think of, on the real scripts.

tests/model_runs.py tells how to try more of them than `make test` does.
"""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.model_runs import bite, check, model_redis
from tests.model_server import Break, GuaranteeError, ModelServer
from tests.queue_calls import QueueCalls
from tests.queue_model import QueueModel
from tests.running import Part


@pytest.fixture
def redis_now(valkey: Part) -> Iterator[Redis]:
    with model_redis(valkey) as client:
        yield client


def machine_on(calls: QueueCalls) -> type[QueueModel]:
    class Machine(QueueModel):
        def __init__(self) -> None:
            super().__init__(calls)

    return Machine


def test_no_interleaving_breaks_a_promise(redis_now: Redis) -> None:
    check(machine_on(QueueCalls(ModelServer(redis_now))))


# The texts that a broken variant replaces. The product's own scripts break no promise, so whatever is caught is its.
ACK_HOLDER = "redis.call('HGET', META, 'epoch') ~= epoch or not redis.call('ZSCORE', LEASES, member)"
BROKEN: dict[str, list[Break]] = {
    "an ack without a token": [("ack", ACK_HOLDER, "redis.call('HGET', META, 'epoch') ~= epoch")],
    "a fence that counts": [("ack", ACK_HOLDER, "not redis.call('ZSCORE', LEASES, member)")],
    "LPOP instead of the lease": [
        (
            "claim",
            "return answer(from, to, '-', entries)",
            "redis.call('LPOP', QUEUE, #entries)\nreturn answer(from, to, '-', entries)",
        )
    ],
    "a claim that ignores expired leases": [("claim", "if expired then", "if false then")],
    "a claim that trusts the clock": [("claim", "'(' .. text(now + lease_ms), '+inf'", "'+inf', '+inf'")],
    "an ack that trims by count": [
        ("ack", "if from ~= head then", "if false then"),
        ("ack", "text(tonumber(reached) - tonumber(head))", "text(tonumber(to) - tonumber(from))"),
    ],
    "unstored from positions": [
        (
            "ack",
            "redis.call('ZREM', LEASES, member)",
            """local reached = {}
for _, entry in ipairs(redis.call('LRANGE', QUEUE, from - redis.call('HGET', META, 'head'),
    to - redis.call('HGET', META, 'head') - 1)) do
  local name, position = string.match(entry, '^1 %S+ (%S+) (%d+)')
  if name then reached[name] = tonumber(position) end
end
redis.call('ZREM', LEASES, member)""",
        ),
        (
            "ack",
            "math.max(tonumber(state[1]) - tonumber(count), 0)",
            """0
    for _, item in ipairs(redis.call('LRANGE', items_key(tenant, conversation), 0, -1)) do
      if tonumber(string.match(item, '^%d+')) > reached[conversation] then unstored = unstored + 1 end
    end""",
        ),
    ],
    "an extend without a token": [("extend", "or not deadline or", "or")],
    "a release without a token": [("release", "or not deadline then", "then")],
    "a release that counts as a failure": [("release", "if failed ~= '1' then", "if false then")],
    "a release that forgets attempts": [
        ("release", "redis.call('HINCRBY', ATTEMPTS, from, -1)", "redis.call('HSET', ATTEMPTS, from, -1)")
    ],
    "a halving that forgets the other half": [("claim", "lease(middle, to, holder, 0, '-', former)", "")],
    "a repeated claim that starts anew": [("claim", "if own then", "if false then")],
    "a repeated claim that is no claim": [
        ("claim", "text(to) .. ':' .. token) == '0' then", "text(to) .. ':' .. token) == '-' then")
    ],
    "an ack that leaves the session behind": [("ack", "redis.call('HDEL', SESSIONS, token)", "")],
    "an ack that lets go too early": [
        ("ack", "elseif unstored == 0 and not state[3] then", "elseif not state[3] then")
    ],
    "a replay that is not counted": [("replay", "redis.call('HINCRBY', conv, 'unstored', 1)", "")],
    "a replay that is counted down only": [
        ("replay", "redis.call('RPUSH', QUEUE, uncounted)", "redis.call('RPUSH', QUEUE, entry)")
    ],
    "a claim that knows the last holder only": [
        ("claim", "string.gmatch(before or '-', '[^,]+')", "string.gmatch('-', '[^,]+')")
    ],
    "a claim that takes what was given back first": [
        ("claim", "local expired = redis.call('ZRANGE', LEASES, '(0', text(now), 'BYSCORE', 'LIMIT', 0, 1)[1]", ""),
        (
            "claim",
            "  or redis.call('ZRANGE', LEASES, 0, 0,",
            "local expired = redis.call('ZRANGE', LEASES, 0, text(now),",
        ),
    ],
    "an epoch that keeps the leases": [("renew", "'(0', '+inf', 'BYSCORE'", "'(0', '(0', 'BYSCORE'")],
    "an epoch that counts as a failure": [
        ("renew", "redis.call('HINCRBY', ATTEMPTS, string.match(member, '^%d+'), -1)", "")
    ],
    "a try alone without a token": [("try_alone", "or not deadline or deadline == '0'", "or deadline == '0'")],
    "a try alone that nobody remembers": [
        ("try_alone", "if not string.find(tries, token, 1, true) then", "if false then")
    ],
    "a holder that gave back and is blamed": [("release", "redis.call('HDEL', ALONE, from)", "")],
    "an epoch that is not raised": [("renew", "state[1] and state[2] == run", "state[1]")],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_script_is_caught(redis_now: Redis, name: str) -> None:
    calls = QueueCalls(ModelServer(redis_now, BROKEN[name]), counted_tokens=name == "a fence that counts")
    with pytest.raises(GuaranteeError):
        bite(machine_on(calls))
