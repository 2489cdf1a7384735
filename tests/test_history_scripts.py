"""The scripts of the hot history on a real Valkey: locks, forks, positions, tombstones, limits, times to live."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from api.history import changes, orphans, steps
from api.history.changes import Ticket
from api.lanes import Lanes
from api.store import StoredConversation
from core.entry import Kind
from core.queue import META
from tests.entries import TENANT, empty_queue
from tests.hot_turns import (
    CONVERSATION,
    EXPIRATION,
    append,
    begun,
    create,
    drain,
    ending,
    entries,
    expire_lock,
    finish,
    flush,
    opening,
    refusal,
    response_of,
    running_lanes,
    said,
    texts,
    texts_of,
    turn,
)
from tests.ownership import violations

pytestmark = pytest.mark.anyio

CONV, ITEMS = f"conv:{TENANT}:{CONVERSATION}", f"items:{TENANT}:{CONVERSATION}"
FUTURE = 4_000_000_000_000_000
STORED = StoredConversation(7, b"{}", False, [], FUTURE, None, [(FUTURE, said("msg_stored", "stored"))])


@pytest.fixture(autouse=True)
async def clean(redis: Redis) -> AsyncIterator[None]:
    """Start on an empty Redis; leave no key without time to live or owner, and no wrong count."""
    await empty_queue(redis)
    yield
    assert await violations(redis) == []


@pytest.fixture
async def lanes(redis: Redis) -> AsyncIterator[Lanes]:
    async with running_lanes(redis) as one:
        yield one


# --- threads and forks


async def test_a_thread_goes_on_where_its_last_response_ended(lanes: Lanes, redis: Redis) -> None:
    first = opening()
    thread = await turn(lanes, first, "hello", "hi")
    second = opening(previous=first.response)
    continued = await begun(lanes, second)
    assert continued.thread == thread == first.new_thread
    assert texts_of(continued.items) == ["hello", "hi"]
    await finish(lanes, second, thread, ending(second.response, "more", "well"))
    assert await texts(redis, thread) == ["hello", "hi", "more", "well"]
    assert [entry.kind for entry in await entries(redis, thread)] == ["item", "item", "response"] * 2


async def test_what_else_is_continued_becomes_a_fork(lanes: Lanes, redis: Redis) -> None:
    await create(redis)
    said_there, root, last = opening(CONVERSATION), opening(), opening()
    await turn(lanes, said_there, "c1", "c2")
    await turn(lanes, opening(CONVERSATION), "c3", "c4")
    await turn(lanes, root, "a", "b")
    last = opening(previous=root.response)
    await turn(lanes, last, "c", "d")
    branches = {
        "an earlier response": (root, ["a", "b"], root.new_thread),
        "one that is being continued": (last, ["a", "b", "c", "d"], root.new_thread),
        "a response of a conversation": (said_there, ["c1", "c2"], CONVERSATION),
    }
    for name, (previous, prefix, parent) in branches.items():
        if previous is last:
            assert (await begun(lanes, opening(previous=last.response))).thread == root.new_thread
        one = opening(previous=previous.response)
        forked = await begun(lanes, one)
        assert (forked.thread, texts_of(forked.items)) == (one.new_thread, prefix), name
        assert await finish(lanes, one, forked.thread, ending(one.response, "x", "y")) == "ok"
        assert await texts(redis, forked.thread) == [*prefix, "x", "y"]
        row, *_ = await entries(redis, forked.thread)
        assert (row.kind, row.id) == (Kind.CONVERSATION, forked.thread)
        known = orjson.loads(row.body)
        assert (known["hidden"], known["parent"]) == (True, parent)
        assert known["parent_position"] == (await response_of(redis, previous)).end
    assert await texts(redis, root.new_thread) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("conversation", ["", CONVERSATION])
async def test_a_turn_that_produced_nothing_leaves_all_as_it_was(lanes: Lanes, redis: Redis, conversation: str) -> None:
    await create(redis, "a")
    one = opening(conversation, key="again")
    thread = await turn(lanes, one)
    assert await texts(redis) == ["a"]
    known = await response_of(redis, one)
    assert (known.status, known.end, known.input) == ("failed", None, b"[]")
    assert await refusal(lanes, opening(previous=one.response)) == ("response_empty", "")
    if not conversation:
        assert await changes.read(redis, TENANT, thread, items=True) == "cold"
    # A plain retry with the same key runs again.
    retry = opening(conversation, key="again")
    assert texts_of((await begun(lanes, retry)).items) == (["a"] if conversation else [])


# --- locks


async def test_one_turn_at_a_time(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    openings = [opening(CONVERSATION) for _ in range(20)]
    outcomes = await asyncio.gather(*(steps.begin(lanes, one, 1000) for one in openings))
    winner = next(one for one, outcome in zip(openings, outcomes, strict=True) if isinstance(outcome, steps.Begun))
    losers = [outcome for outcome in outcomes if isinstance(outcome, steps.Refused)]
    assert {(one.reason, one.detail) for one in losers} == {("locked", winner.response)}
    assert len(losers) == 19
    item = await changes.delete_item(redis, TENANT, CONVERSATION, "msg_a")
    assert (await append(redis, "b"), item.reason, item.detail) == ("locked", "locked", winner.response)
    assert await finish(lanes, winner, CONVERSATION, ending(winner.response, "b", "c")) == "ok"
    assert texts_of((await begun(lanes, opening(CONVERSATION))).items) == ["a", "b", "c"]


@pytest.mark.parametrize("produced", [("said", "answered"), ()], ids=["with an answer", "without"])
async def test_a_begin_that_comes_late_opens_nothing_again(
    lanes: Lanes, redis: Redis, produced: tuple[str, ...]
) -> None:
    """Redis may carry out a copy of it after the turn has ended."""
    await create(redis, "first")
    late = opening(conversation=CONVERSATION)
    await begun(lanes, late)
    assert await finish(lanes, late, CONVERSATION, ending(late.response, *produced)) == "ok"
    assert await refusal(lanes, late) == ("late", "")
    assert (await response_of(redis, late)).body is not None
    assert await texts(redis) == ["first", *produced]
    next_one = opening(conversation=CONVERSATION)
    await begun(lanes, next_one)
    assert await finish(lanes, next_one, CONVERSATION, ending(next_one.response, "more", "again")) == "ok"


async def test_who_does_not_hold_the_lock_writes_nothing(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    one, other = opening(CONVERSATION), opening(CONVERSATION)
    await begun(lanes, one)
    stranger = opening(CONVERSATION)
    before = await redis.hgetall(CONV)
    for response, token in ((one.response, stranger.token), (stranger.response, one.token), (other.response, "")):
        end = ending(response, "b", log=b"x")
        assert (await steps.finish(lanes, TENANT, CONVERSATION, response, token, end))[0] == "lost"
        flushed = steps.Flush(TENANT, CONVERSATION, response, token, b"x", 1)
        assert await steps.flush(redis, [flushed]) == ["lost"]
    assert await redis.hgetall(CONV) == before
    assert len(await entries(redis)) == 2
    assert await redis.keys("log:*") == []


async def test_an_expired_lock_is_taken_over_once(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    one = opening(CONVERSATION)
    await begun(lanes, one)
    await flush(redis, one, CONVERSATION, b"first", 4)
    assert await orphans.takeover(redis, TENANT, one.response, "early") is None
    assert await orphans.expired(redis, 10) == []
    await expire_lock(redis, one, CONVERSATION)
    assert await orphans.expired(redis, 10) == [(TENANT, one.response)]
    assert await refusal(lanes, opening(CONVERSATION)) == ("expired", one.response)
    tokens = [f"successor{number}" for number in range(10)]
    taken = await asyncio.gather(*(orphans.takeover(redis, TENANT, one.response, token) for token in tokens))
    (orphan,) = [each for each in taken if each]
    assert (orphan.thread, orphan.request, orphan.log) == (CONVERSATION, one.request, [b"first"])
    assert await flush(redis, one, CONVERSATION, b"late", 9) == "lost"
    assert await finish(lanes, one, CONVERSATION, ending(one.response, "late")) == "lost"
    token = tokens[taken.index(orphan)]
    end = ending(one.response, "b", "half")
    assert (await steps.finish(lanes, TENANT, CONVERSATION, one.response, token, end))[0] == "ok"
    assert await orphans.takeover(redis, TENANT, one.response, "late") is None
    assert await texts(redis) == ["a", "b", "half"]


# --- positions


async def test_positions_are_contiguous_and_grow_whatever_the_clock_does(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a", "b")
    await redis.hset(META, "floor", FUTURE)
    await turn(lanes, opening(CONVERSATION), "c", "d", "e")
    await redis.hset(META, "floor", 0)
    # From here on the clock is far behind the last position.
    await append(redis, "f")
    await turn(lanes, opening(CONVERSATION), "g", "h")
    hot = await changes.read(redis, TENANT, CONVERSATION, items=True)
    assert isinstance(hot, changes.HotConversation)
    positions = [position for position, _ in hot.items]
    assert positions == [entry.position for entry in await entries(redis) if entry.kind is Kind.ITEM]
    assert all(one < other for one, other in itertools.pairwise(positions))
    assert positions[2:] == list(range(FUTURE, FUTURE + 6))
    assert positions[1] == positions[0] + 1


# --- deleted, evicted, cold


async def test_nothing_gets_past_a_tombstone(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    one = opening(CONVERSATION, key="key")
    await begun(lanes, one)
    await flush(redis, one, CONVERSATION, b"first", 0)
    assert (await changes.delete_conversation(redis, TENANT, CONVERSATION)).reason == "ok"

    async def is_gone() -> None:
        assert await refusal(lanes, opening(CONVERSATION)) == ("gone", "")
        assert await flush(redis, one, CONVERSATION, b"late", 9) == "gone"
        assert await finish(lanes, one, CONVERSATION, ending(one.response, "late")) == "gone"
        assert await append(redis, "late") == "gone"
        assert (await changes.delete_item(redis, TENANT, CONVERSATION, "msg_a")).reason == "gone"
        assert (await changes.delete_conversation(redis, TENANT, CONVERSATION)).reason == "gone"
        await changes.warm(redis, TENANT, CONVERSATION, "", STORED, EXPIRATION)
        assert await changes.read(redis, TENANT, CONVERSATION, items=True) == "gone"
        assert await redis.keys(f"*{one.response}") == []

    await is_gone()
    assert [entry.kind for entry in await entries(redis)] == ["conversation", "item", "delete_conversation"]
    await drain(redis)
    await is_gone()


async def test_a_deleted_response_takes_its_items_along_in_a_thread_of_its_own(lanes: Lanes, redis: Redis) -> None:
    first = opening()
    thread = await turn(lanes, first, "a", "b")
    second, third = opening(previous=first.response), opening(previous=first.response)
    await turn(lanes, second, "c", "d")
    running = await begun(lanes, third)
    known = await response_of(redis, second)
    assert (await changes.delete_response(redis, TENANT, third.response, "", None, None)).reason == "running"
    deleted = await changes.delete_response(redis, TENANT, second.response, thread, known.first, known.end)
    assert deleted.reason == "ok"
    assert await texts(redis, thread) == ["a", "b"]
    assert await changes.read_response(redis, TENANT, second.response) == "gone"
    assert (await refusal(lanes, opening(previous=second.response)))[0] == "response_gone"
    assert await finish(lanes, third, running.thread, ending(third.response, "e", "f")) == "ok"
    await drain(redis)


async def test_nobody_may_load_what_is_there_again(redis: Redis) -> None:
    """A loader that looked before another one had warmed comes too late for a ticket."""
    await create(redis, "a")
    await drain(redis)
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is None
    assert (await changes.delete_conversation(redis, TENANT, CONVERSATION)).reason == "ok"
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is None
    assert await redis.keys("load:*") == []
    await drain(redis)


@pytest.mark.parametrize("lost", [CONV, ITEMS, "an element"])
async def test_half_a_conversation_can_be_loaded(redis: Redis, lost: str) -> None:
    """Also by who only reads it."""
    await create(redis, "a", "b")
    await drain(redis)
    await (redis.lpop(ITEMS) if lost == "an element" else redis.delete(lost))
    assert await changes.read(redis, TENANT, CONVERSATION, items=True) == "cold"
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is not None
    assert await redis.exists(CONV, ITEMS) == 0


@pytest.mark.parametrize("lost", [CONV, ITEMS, "an element"])
async def test_half_a_conversation_is_a_miss(lanes: Lanes, redis: Redis, lost: str) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: refusal(lanes, opening(CONVERSATION)),
        lambda: append(redis, "c"),
        lambda: changes.delete_item(redis, TENANT, CONVERSATION, "msg_a"),
        lambda: changes.read(redis, TENANT, CONVERSATION, items=True),
    ]
    for call in calls:
        await create(redis, "a", "b")
        await drain(redis)
        await (redis.lpop(ITEMS) if lost == "an element" else redis.delete(lost))
        assert "cold" in str(await call())
        await redis.delete(CONV, ITEMS)


async def test_only_the_ticket_s_holder_warms_and_only_what_is_cold(lanes: Lanes, redis: Redis) -> None:
    async def warm(ticket: Ticket | None) -> list[str] | None:
        token = ticket.token if ticket else ""
        await changes.warm(redis, TENANT, CONVERSATION, token, STORED, EXPIRATION)
        hot = await changes.read(redis, TENANT, CONVERSATION, items=True)
        return None if hot == "cold" else await texts(redis)

    ticket = await changes.take_ticket(redis, TENANT, CONVERSATION)
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is None
    assert await warm(Ticket("another", doubtful=False, parent=None)) is None
    assert await warm(ticket) == ["stored"]
    assert 0 < await redis.ttl(CONV) <= EXPIRATION
    await append(redis, "new")
    (appended,) = await entries(redis)
    assert appended.position == FUTURE + 1
    # The keys are there.
    assert await warm(await changes.take_ticket(redis, TENANT, CONVERSATION)) == ["stored", "new"]
    await redis.delete(f"load:{TENANT}:{CONVERSATION}")
    # Each writer takes the ticket away from a loader who saw the state before it.
    writers: list[Callable[[], Awaitable[object]]] = [
        lambda: append(redis, "newer"),
        lambda: turn(lanes, opening(CONVERSATION), "c", "d"),
        lambda: changes.delete_item(redis, TENANT, CONVERSATION, "msg_stored"),
    ]
    for write in writers:
        await redis.set(f"load:{TENANT}:{CONVERSATION}", "stale")  # nobody gets one for what is hot
        await write()
        await drain(redis)
        await redis.delete(CONV, ITEMS)
        assert await warm(Ticket("stale", doubtful=False, parent=None)) is None
        assert await warm(await changes.take_ticket(redis, TENANT, CONVERSATION)) == ["stored"]


# --- limits and times to live


async def test_a_full_queue_refuses_new_work_and_keeps_what_runs(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    one = opening(CONVERSATION)
    await begun(lanes, one)
    assert await refusal(lanes, opening(), limit=2) == ("queue_full", "")
    assert await append(redis, "b", limit=2) == "queue_full"
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await steps.begin(lanes, opening(), 1000)
        with pytest.raises(OutOfMemoryError):
            await append(redis, "b")
        assert await flush(redis, one, CONVERSATION, b"text", 5) == "ok"
        assert await finish(lanes, one, CONVERSATION, ending(one.response, "b", "c")) == "ok"
        await drain(redis)
        other = (await changes.delete_conversation(redis, TENANT, CONVERSATION)).reason
        assert other in ("ok", "cold"), "what is stored may have been evicted"
    finally:
        await redis.config_set("maxmemory", "1gb")


async def test_only_what_is_stored_and_not_in_use_gets_a_time_to_live(lanes: Lanes, redis: Redis) -> None:
    async def lives() -> tuple[bool, bool]:
        assert await violations(redis) == []
        return await redis.ttl(CONV) > 0, await redis.ttl(ITEMS) > 0

    await create(redis, "a")
    assert await lives() == (False, False)
    await drain(redis)
    assert await lives() == (True, True)
    one = opening(CONVERSATION, key="key")
    await begun(lanes, one)
    assert await lives() == (False, False)
    await flush(redis, one, CONVERSATION, b"text", 5)
    assert await finish(lanes, one, CONVERSATION, ending(one.response, "b", "c", log=b"end", sequence=6)) == "ok"
    assert await lives() == (False, False)
    assert 0 < await redis.ttl(f"log:{TENANT}:{one.response}") <= steps.LOG_SECONDS
    assert 0 < await redis.ttl(f"idem:{TENANT}:key") <= 60
    lease_of_one, other = opening(CONVERSATION), opening()
    await begun(lanes, lease_of_one)
    await drain(redis)
    assert await lives() == (False, False), "its lock is held"
    await finish(lanes, lease_of_one, CONVERSATION, ending(lease_of_one.response))
    await turn(lanes, other)
    await drain(redis)
    assert await lives() == (True, True)


async def test_a_key_stands_for_one_request(lanes: Lanes) -> None:
    one = opening(key="key")
    thread = (await begun(lanes, one)).thread
    assert await refusal(lanes, opening(key="key")) == ("replay", one.response)
    assert await refusal(lanes, opening(key="key", request_hash="other")) == ("idempotency_key_reused", one.response)
    await finish(lanes, one, thread, ending(one.response, "a", "b"))
    assert await refusal(lanes, opening(key="key")) == ("replay", one.response)


async def test_tenants_do_not_meet(lanes: Lanes, redis: Redis) -> None:
    await create(redis, "a")
    stranger = replace(opening(CONVERSATION), tenant="other")
    assert await refusal(lanes, stranger) == ("cold", CONVERSATION)
    assert await changes.read(redis, "other", CONVERSATION, items=True) == "cold"
    mine = opening(key="key")
    await turn(lanes, mine, "b", "c")
    assert (await refusal(lanes, replace(opening(previous=mine.response), tenant="other")))[0] == "response_cold"
    assert (await begun(lanes, replace(opening(key="key"), tenant="other"))).items == []
