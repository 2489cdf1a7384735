"""Turns of several pods, takeovers, deletes, evictions and slow loaders in every order, on the real scripts.

tests/model_runs.py tells how to try more of them than `make test` does.
"""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.model_runs import bite, check, model_redis
from tests.model_server import Break, GuaranteeError, ModelServer
from tests.running import Part
from tests.turn_calls import TurnCalls
from tests.turn_model import TurnModel


@pytest.fixture
def redis_now(valkey: Part) -> Iterator[Redis]:
    with model_redis(valkey) as client:
        yield client


def machine_on(calls: TurnCalls) -> type[TurnModel]:
    class Machine(TurnModel):
        def __init__(self) -> None:
            super().__init__(calls)

    return Machine


def test_no_interleaving_breaks_a_promise(redis_now: Redis) -> None:
    check(machine_on(TurnCalls(ModelServer(redis_now))))


# The texts that a broken variant replaces. The product's own scripts break no promise, so whatever is caught is its.
HOLDER = "if state[2] ~= response or state[3] ~= token then"
HANDING = "if state[1] ~= response or state[2] ~= token then"
PERSIST_LIST = "redis.call('PERSIST', list)"
BROKEN: dict[str, list[Break]] = {
    "a finish without a token": [("finish", HOLDER, "if false then")],
    "a flush without a token": [("flush", HOLDER, "if false then")],
    "a flush that knows the response only": [("flush", HOLDER, "if state[2] ~= response then")],
    "a finish that knows the response only": [("finish", HOLDER, "if state[2] ~= response then")],
    "a takeover that fences nobody off": [
        ("takeover", "redis.call('HSET', conv, 'token', token, 'deadline', renewed)", "")
    ],
    "a takeover of who lives": [
        ("takeover", "(not force and tonumber(deadline) > now_ms() and known[4] ~= token)", "false")
    ],
    "a begin without a lock": [("begin", "elseif locked then", "elseif false then")],
    "a begin that keeps the time to live": [("begin", PERSIST_LIST, "")],
    "a begin that reads half a copy": [
        ("begin", "not state[2] or redis.call('LLEN', list) ~= tonumber(state[2])", "not state[2]")
    ],
    "an append while a turn runs": [("append", "elseif state[3] then", "elseif false then")],
    "an append that keeps the time to live": [("append", PERSIST_LIST, "")],
    "a warm without a ticket": [("warm", "redis.call('GET', load_key(tenant, thread)) ~= ticket or", "")],
    "a warm over what is there": [
        (
            "warm",
            "redis.call('GET', load_key(tenant, thread)) ~= ticket or redis.call('EXISTS', conv, list) > 0",
            "false",
        )
    ],
    "positions by the clock": [("finish", "math.max(tonumber(last) + 1, now_us(), floor)", "now_us()")],
    "a finish that is not counted": [("finish", "redis.call('HINCRBY', conv, 'unstored', 1)", "")],
    "an ack that forgets the lock": [
        ("ack", "elseif unstored == 0 and not state[3] then", "elseif unstored == 0 then")
    ],
    "a delete without a tombstone": [("delete_conversation", "redis.call('HSET', conv, 'deleted', '1')", "")],
    "an abandon without a token": [
        ("abandon", "known[1] ~= 'in_progress' or known[2] ~= token", "known[1] ~= 'in_progress'")
    ],
    "a handing over of what somebody else holds": [("hand_over", HANDING, "if false then")],
    "a handing over that keeps the token": [("hand_over", "'token', '', 'deadline', free_at", "'deadline', free_at")],
    "a deleted item that stays": [("delete_item", "redis.call('LREM', list, 1, found)", "")],
}

# Those that are caught when replies get lost.
FORGETFUL: dict[str, list[Break]] = {
    "an append that is done twice": [("append", "if written(token)", "if false")],
    "a begin that does not know itself": [("begin", "if earlier[1] then", "if false then")],
    "a finish that does not know itself": [
        ("finish", "if done[1] == status and done[2] == token then", "if false then")
    ],
    "a takeover that does not know itself": [("takeover", " and known[4] ~= token", "")],
    "a delete that does not know itself": [("delete_conversation", "if written(token)", "if false")],
}


@pytest.mark.parametrize("name", [*BROKEN, *FORGETFUL])
def test_a_broken_script_is_caught(redis_now: Redis, name: str) -> None:
    breaks = {**BROKEN, **FORGETFUL}[name]
    calls = TurnCalls(ModelServer(redis_now, breaks, always_losing=name in FORGETFUL))
    with pytest.raises(GuaranteeError):
        bite(machine_on(calls))
