"""A reply is lost after Redis has carried the script out; the client sends it again: as if nothing had happened."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from api.history import changes, orphans, rates, steps
from api.lanes import Lanes
from api.rates import Allowance, Limits
from core.queue import connect
from core.settings import RedisSettings
from tests.entries import TENANT, empty_queue
from tests.hot_turns import (
    CONVERSATION,
    append,
    begun,
    create,
    ending,
    expire_lock,
    finish,
    flush,
    opening,
    refusal,
    running_lanes,
    texts_of,
    turn,
)
from tests.lossy import Lossy, lossy
from tests.ownership import take_picture, violations
from tests.running import Part

pytestmark = pytest.mark.anyio

ITEMS = f"items:{TENANT}:{CONVERSATION}"
Call = Callable[[], Awaitable[object]]
Preparation = Callable[[Lanes, Redis], Awaitable[Call]]
CASES: dict[str, Preparation] = {}


def case(name: str) -> Callable[[Preparation], Preparation]:
    """A preparation brings a conversation into some state and returns the call that is to be repeated."""

    def keep(preparation: Preparation) -> Preparation:
        CASES[name] = preparation
        return preparation

    return keep


@pytest.fixture
async def way(valkey: Part) -> AsyncIterator[Lossy]:
    async with lossy(valkey.port) as one:
        yield one


@pytest.fixture
async def client(way: Lossy) -> AsyncIterator[Redis]:
    """The product's own client, on a way on which replies may get lost."""
    async with connect(RedisSettings("127.0.0.1", way.port, "", ""), 4) as one:
        await one.ping()
        yield one


async def picture(redis: Redis) -> list[tuple[object, ...]]:
    """All that a reader, a worker or a sweeper can see, without ids and times."""
    whole = await take_picture(redis)
    seen: list[tuple[object, ...]] = [
        ("queue", *(entry.kind for entry in whole.entries)),
        ("running", len(whole.running)),
    ]
    for name in whole.lives:
        state = whole.hashes.get(name, {})
        match name.partition(":")[0]:
            case "conv":
                seen.append(("conv", *map(state.get, ("len", "unstored", "deleted")), "lock" in state))
            case "items":
                seen.append(("items", await redis.llen(name)))
            case "log":
                seen.append(("log", await redis.xlen(name)))
            case "resp":
                seen.append(("resp", state["status"]))
            case "idem":
                seen.append((name,))
            case "rate":
                seen.append(("rate", await redis.hget(name, "requests"), await redis.hget(name, "tokens")))
    return sorted(seen, key=repr)


@case("begin of a new thread")
async def _(lanes: Lanes, _: Redis) -> Call:
    one = opening(key="key")
    return lambda: _items(lanes, one)


async def _items(lanes: Lanes, one: steps.Opening) -> list[str]:
    return texts_of((await begun(lanes, one)).items)


@case("begin with limits")
async def _(lanes: Lanes, _: Redis) -> Call:
    one = replace(opening(), allowance=Allowance(Limits(10, 100)), tokens=5)
    return lambda: _items(lanes, one)


@case("finish with limits")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = replace(opening(await create(redis, "a")), allowance=Allowance(Limits(10, 100)), tokens=5)
    await begun(lanes, one)
    end = replace(ending(one.response, "b", "c"), tokens=45)
    return lambda: finish(lanes, one, CONVERSATION, end)


@case("count of what is not stored")
async def _(lanes: Lanes, _: Redis) -> Call:
    return lambda: rates.take(lanes, TENANT, Allowance(Limits(10, 100)), 5)


@case("settlement of what is not stored")
async def _(lanes: Lanes, _: Redis) -> Call:
    return lambda: rates.settle(lanes, TENANT, Allowance(Limits(10, 100)), 40)


@case("begin in a conversation")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening(await create(redis, "a"), key="key")
    return lambda: _items(lanes, one)


@case("begin of a continuation")
async def _(lanes: Lanes, _: Redis) -> Call:
    first = opening()
    await turn(lanes, first, "a", "b")
    one = opening(previous=first.response)
    return lambda: _items(lanes, one)


@case("begin of a fork")
async def _(lanes: Lanes, _: Redis) -> Call:
    first = opening()
    await turn(lanes, first, "a", "b")
    await turn(lanes, opening(previous=first.response), "c", "d")
    one = opening(previous=first.response)
    return lambda: _items(lanes, one)


@case("begin that is refused")
async def _(lanes: Lanes, redis: Redis) -> Call:
    await begun(lanes, opening(await create(redis, "a")))

    async def call() -> str:
        return (await refusal(lanes, opening(CONVERSATION, key="key")))[0]

    return call


@case("flush")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening(await create(redis, "a"))
    await begun(lanes, one)
    return lambda: flush(redis, one, CONVERSATION, b"text", 5)


@case("finish")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening(await create(redis, "a"), key="key")
    await begun(lanes, one)
    end = ending(one.response, "b", "c", log=b"end", sequence=9)
    return lambda: finish(lanes, one, CONVERSATION, end)


@case("finish of a fork")
async def _(lanes: Lanes, redis: Redis) -> Call:
    first = opening(await create(redis))
    await turn(lanes, first, "a", "b")
    one = opening(previous=first.response)
    thread, end = (await begun(lanes, one)).thread, ending(one.response, "c", "d")
    return lambda: finish(lanes, one, thread, end)


@case("finish of a turn that produced nothing")
async def _(lanes: Lanes, _: Redis) -> Call:
    one = opening(key="key")
    thread, end = (await begun(lanes, one)).thread, ending(one.response)
    return lambda: finish(lanes, one, thread, end)


@case("takeover")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening(await create(redis, "a"))
    await begun(lanes, one)
    await expire_lock(redis, one, CONVERSATION)

    async def call() -> bool:
        return await orphans.takeover(redis, TENANT, one.response, "successor") is not None

    return call


@case("handing a response over")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening(await create(redis, "a"))
    await begun(lanes, one)

    async def call() -> int:
        await orphans.hand_over(redis, TENANT, CONVERSATION, one.response, one.token)
        orphan = await orphans.takeover(redis, TENANT, one.response, "successor")
        assert orphan is not None
        return orphan.takeups

    return call


@case("creation of a conversation")
async def _(_: Lanes, redis: Redis) -> Call:
    return lambda: create(redis, "a", "b")


@case("items with an idempotency key")
async def _(_: Lanes, redis: Redis) -> Call:
    await create(redis, "a")
    return lambda: append(redis, "b", key="key")


async def _hot(_: Lanes, redis: Redis) -> None:
    await create(redis, "a")


async def _locked(lanes: Lanes, redis: Redis) -> None:
    await begun(lanes, opening(await create(redis, "a")))


async def _half_evicted(_: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    await redis.delete(ITEMS)


async def _unknown(_: Lanes, __: Redis) -> None:
    pass


async def delete_conversation(redis: Redis) -> str:
    return (await changes.delete_conversation(redis, TENANT, CONVERSATION)).reason


async def delete_item(redis: Redis, item: str) -> str:
    return (await changes.delete_item(redis, TENANT, CONVERSATION, item)).reason


STATES = {"hot": _hot, "locked": _locked, "half evicted": _half_evicted, "unknown": _unknown}
CHANGES: dict[str, Callable[[Redis], Awaitable[object]]] = {
    "append": lambda redis: append(redis, "b"),
    "delete_item": lambda redis: delete_item(redis, "msg_a"),
    "delete_item of none": lambda redis: delete_item(redis, "msg_b"),
    "delete_conversation": delete_conversation,
}
EXPECTED = {
    ("append", "hot"): "ok",
    ("append", "locked"): "locked",
    ("delete_item", "hot"): "ok",
    ("delete_item", "locked"): "locked",
    ("delete_item of none", "hot"): "no_item",
    ("delete_item of none", "locked"): "locked",
    ("delete_conversation", "hot"): "ok",
    ("delete_conversation", "locked"): "ok",
    ("delete_conversation", "half evicted"): "ok",
}


async def delete_response(redis: Redis, response: str, thread: str) -> str:
    return (await changes.delete_response(redis, TENANT, response, thread, None, None)).reason


@case("delete of a response")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening()
    thread = await turn(lanes, one, "a", "b")
    return lambda: delete_response(redis, one.response, thread)


@case("delete of a running response")
async def _(lanes: Lanes, redis: Redis) -> Call:
    one = opening()
    thread = (await begun(lanes, one)).thread
    return lambda: delete_response(redis, one.response, thread)


async def repeated(preparation: Preparation, way: Lossy, client: Redis) -> object:
    """Carry the call out twice over, the second time with its first reply lost; its result, which must be the same."""
    seen = []
    for losing in (0, 1):
        await empty_queue(client)
        async with running_lanes(client) as lanes:
            call = await preparation(lanes, client)
            way.losing = losing
            seen.append((await call(), await picture(client)))
    assert way.lost == 1
    assert seen[0] == seen[1]
    return seen[0][0]


async def evict(redis: Redis) -> None:
    for name in [key async for key in redis.scan_iter() if await redis.ttl(key) > 0]:
        await redis.delete(name)


@pytest.mark.parametrize("name", CASES)
async def test_a_step_of_a_turn(way: Lossy, client: Redis, name: str) -> None:
    await repeated(CASES[name], way, client)
    assert await violations(client) == []


@pytest.mark.parametrize(("change", "state"), [(change, state) for change in CHANGES for state in STATES])
async def test_a_change(way: Lossy, client: Redis, change: str, state: str) -> None:
    """What was refused is refused again, never told as done; also when Redis evicts meanwhile all that it may."""
    way.meanwhile = functools.partial(evict, client)

    async def prepare(lanes: Lanes, redis: Redis) -> Call:
        await STATES[state](lanes, redis)
        return lambda: CHANGES[change](redis)

    assert await repeated(prepare, way, client) == EXPECTED.get((change, state), "cold")


@pytest.mark.parametrize("retried", [False, True], ids=["left alone", "asked for again"])
async def test_a_begin_that_is_given_back(client: Redis, retried: bool) -> None:
    """Its client was told that nothing was begun, unless a retry with the same key was told that it runs."""
    await empty_queue(client)
    async with running_lanes(client) as lanes:
        one = opening(await create(client, "a"), key="key")
        await begun(lanes, one)
        if retried:
            assert await refusal(lanes, opening(CONVERSATION, key="key")) == ("replay", one.response)
            await orphans.ask_again(client, TENANT, one.response, b"{}")
        assert await steps.abandon(client, one, 1800)
        assert not await steps.abandon(client, one, 1800)
        assert await refusal(lanes, one) == ("late", "") if retried else await begun(lanes, one)
        assert await orphans.expired(client, 10) == ([(TENANT, one.response)] if retried else [])
        orphan = await orphans.takeover(client, TENANT, one.response, "successor")
        assert (None if orphan is None else (orphan.again, orphan.takeups)) == ((b"{}", 0) if retried else None)
    assert await violations(client) == []
