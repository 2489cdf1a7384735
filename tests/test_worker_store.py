"""What a range becomes in PostgreSQL: rows, duplicates, clashes, dead letters, deletes."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from tests.entries import (
    FIRST_POSITION,
    TENANT,
    broken_item,
    conversation,
    forget,
    item,
    response,
    store,
    writing_to,
)
from tests.running import Postgres
from worker.queue import MAX_FAILURES

pytestmark = pytest.mark.anyio

POISON = {
    "a NUL character": broken_item(50, b'{"id":"msg_50","text":"\\u0000"}'),
    "a lone surrogate": broken_item(50, b'{"id":"msg_50","text":"\\ud800"}'),
    "bytes that are no UTF-8": broken_item(50, b'{"id":"msg_50","text":"\xff"}'),
    "no JSON": broken_item(50, b'{"id":'),
    "nothing": broken_item(50, b""),
    "too deep": broken_item(50, b"[" * 50_000 + b"]" * 50_000),
    "a position beyond all time": f"1 {TENANT} conv_1 {10**16} item msg_50 -\n{{}}".encode(),
    "no count of items": f"1 {TENANT} conv_1 {FIRST_POSITION} response resp_1\n{{}}".encode(),
    "metadata with a NUL character": conversation("conv_1", 50, {"a": "\0"}),
    "a conversation without its fields": f"1 {TENANT} conv_1 {FIRST_POSITION} conversation conv_1\n{{}}".encode(),
    "an unknown kind": f"1 {TENANT} conv_1 {FIRST_POSITION} thing x\n{{}}".encode(),
    "an unknown version": b"2 default conv_1 1 item msg_1 -\n{}",
    "a NUL in the header": b"1 default conv_1 1 item msg\0 -\n{}",
    "no header": b"\xff\xfe",
    "no bytes": b"",
}


@pytest.fixture(scope="module")
async def writing(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    async with writing_to(postgres, database) as connection:
        yield connection


@pytest.fixture(autouse=True)
async def empty(writing: "asyncpg.Connection[Any]") -> None:
    await forget(writing)


async def ids(writing: "asyncpg.Connection[Any]", table: str) -> list[str]:
    return [row["id"] for row in await writing.fetch(f"SELECT id FROM {table} ORDER BY id")]  # noqa: S608 - our own


async def letters(writing: "asyncpg.Connection[Any]") -> list[tuple[bytes, str]]:
    rows = await writing.fetch("SELECT entry, reason FROM dead_letters ORDER BY id")
    return [(row["entry"], row["reason"]) for row in rows]


async def test_a_turn(writing: "asyncpg.Connection[Any]") -> None:
    stored = await store(
        writing,
        conversation("conv_1", 0, {"topic": "tea"}),
        item(1, response="resp_1"),
        item(2, response="resp_1"),
        response(1, 1, 1),
    )
    assert stored.counts == {(TENANT, "conv_1"): 4}
    assert stored.responses == {(TENANT, "resp_1")}
    rows = await writing.fetch("SELECT *, extract(epoch FROM created_at) AS seconds FROM items ORDER BY position")
    assert [row["position"] for row in rows] == [FIRST_POSITION + 1, FIRST_POSITION + 2]
    assert {row["response"] for row in rows} == {"resp_1"}
    assert orjson.loads(rows[0]["item"]) == {"id": "msg_1", "type": "message", "content": "hello"}
    assert int(rows[0]["seconds"] * 1_000_000) == FIRST_POSITION + 1
    kept = await writing.fetchrow("SELECT * FROM responses")
    assert kept is not None
    assert (kept["position"], kept["input_count"], kept["output_count"]) == (FIRST_POSITION + 1, 1, 1)
    named = await writing.fetchrow("SELECT *, extract(epoch FROM created_at)::bigint AS seconds FROM conversations")
    assert named is not None
    assert (named["seconds"], named["hidden"], orjson.loads(named["metadata"])) == (
        1_790_000_000,
        False,
        {"topic": "tea"},
    )
    state = await writing.fetchrow("SELECT epoch, start, tail, kept::text, position FROM queue_epochs")
    assert state is not None
    assert tuple(state) == (7, 0, 4, "{[0,4)}", FIRST_POSITION + 2)


async def test_a_response_that_left_its_conversation_as_it_was(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, response(-FIRST_POSITION, 0, 0, status="failed"))
    row = await writing.fetchrow("SELECT position, extract(epoch FROM created_at)::bigint AS seconds FROM responses")
    assert row is not None
    assert tuple(row) == (0, 1_790_000_000)


async def test_the_last_writer_of_a_conversation_wins_in_any_order(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, conversation("conv_1", 5, {"v": "5"}), conversation("conv_1", 4, {"v": "4"}))
    await store(writing, conversation("conv_1", 3, {"v": "3"}))
    row = await writing.fetchrow("SELECT position, metadata FROM conversations")
    assert row is not None
    assert (row["position"], orjson.loads(row["metadata"])) == (FIRST_POSITION + 5, {"v": "5"})
    await store(writing, conversation("conv_1", 6, {"v": "6"}))
    assert orjson.loads(await writing.fetchval("SELECT metadata FROM conversations")) == {"v": "6"}


async def test_how_far_the_queue_came_only_grows(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, item(9), first=10)
    await store(writing, item(8), first=5)
    state = await writing.fetchrow("SELECT tail, kept::text, position FROM queue_epochs")
    assert state is not None
    assert tuple(state) == (11, "{[5,6),[10,11)}", FIRST_POSITION + 9)


async def test_a_range_that_comes_again_changes_nothing(writing: "asyncpg.Connection[Any]") -> None:
    entries = [
        conversation("conv_1", 0, {}),
        item(1),
        item(2),
        response(1, 1, 1),
        POISON["no JSON"],
        POISON["no header"],
    ]
    first = await store(writing, *entries)
    again = await store(writing, item(3), *entries, failures=1)
    assert await ids(writing, "items") == ["msg_1", "msg_2", "msg_3"]
    assert await ids(writing, "responses") == ["resp_1"]
    assert len(await letters(writing)) == 2
    assert again.counts[TENANT, "conv_1"] == first.counts[TENANT, "conv_1"] + 1


async def test_the_same_entry_twice_in_one_range(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, item(1), item(1), item(2))
    assert await ids(writing, "items") == ["msg_1", "msg_2"]
    assert await letters(writing) == []


@pytest.mark.parametrize(
    "clashing",
    [
        item(1, text="something else"),
        item(1, conversation="conv_2"),
        item(1, response="resp_1"),
        item(2).replace(b"item msg_2", b"item msg_1"),
        item(1).replace(b"item msg_1", b"item msg_2"),
    ],
    ids=["another content", "another conversation", "another response", "the id at another position", "the position"],
)
async def test_what_differs_from_its_stored_namesake_is_kept_as_a_dead_letter(
    writing: "asyncpg.Connection[Any]", clashing: bytes
) -> None:
    await store(writing, item(1))
    stored = await store(writing, item(3), clashing, item(4))
    assert await letters(writing) == [(clashing, "identity clash")]
    assert await ids(writing, "items") == ["msg_1", "msg_3", "msg_4"]
    assert sum(stored.counts.values()) == 3


async def test_a_response_that_differs_from_its_stored_namesake(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, response(1, 1, 1))
    await store(writing, response(1, 1, 1, status="failed"))
    assert await letters(writing) == [(response(1, 1, 1, status="failed"), "identity clash")]


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_poison_does_not_hold_up_the_good(writing: "asyncpg.Connection[Any]", poison: bytes) -> None:
    await store(writing, *(item(number) for number in range(20)), poison, *(item(number) for number in range(20, 40)))
    assert len(await ids(writing, "items")) == 40
    assert [entry for entry, _ in await letters(writing)] == [poison]


async def test_a_lot_of_poison(writing: "asyncpg.Connection[Any]") -> None:
    bad = [broken_item(1000 + number, b'{"a":"\\u0000"}') for number in range(30)]
    good = [item(number) for number in range(300)]
    mixed = [
        entry
        for number, entry in enumerate(good)
        for entry in ([entry, bad[number // 10]] if number % 10 == 3 else [entry])
    ]
    stored = await store(writing, *mixed)
    assert len(await ids(writing, "items")) == 300
    assert sorted(entry for entry, _ in await letters(writing)) == sorted(bad)
    assert sum(stored.counts.values()) == 330


async def test_poison_among_duplicates(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, item(1), item(2))
    await store(writing, item(1), POISON["a NUL character"], item(3), POISON["too deep"], item(2))
    assert await ids(writing, "items") == ["msg_1", "msg_2", "msg_3"]
    assert [entry for entry, _ in await letters(writing)] == [POISON["a NUL character"], POISON["too deep"]]


async def test_a_dead_letter_tells_no_content_beside_its_entry(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, broken_item(50, b'{"a":"secret"'))
    row = await writing.fetchrow("SELECT * FROM dead_letters")
    assert row is not None
    assert (row["tenant"], row["conversation"], row["kind"], row["entry_id"]) == (TENANT, "conv_1", "item", "msg_50")
    assert "secret" not in row["reason"]
    assert "22P02" in row["reason"]


async def test_an_entry_that_kills_its_workers_is_given_up_unparsed(writing: "asyncpg.Connection[Any]") -> None:
    stored = await store(writing, item(1), failures=MAX_FAILURES, hopeless=True)
    assert await ids(writing, "items") == []
    assert [entry for entry, _ in await letters(writing)] == [item(1)]
    assert stored.counts == {(TENANT, "conv_1"): 1}


async def test_an_entry_that_was_stored_after_all_is_not_given_up(writing: "asyncpg.Connection[Any]") -> None:
    """And means the same to Redis as it does otherwise."""
    for one, responses in ((item(1), set()), (response(1, 1, 0), {(TENANT, "resp_1")})):
        await store(writing, one)
        stored = await store(writing, one, failures=MAX_FAILURES, hopeless=True)
        assert await letters(writing) == []
        assert (stored.counts, stored.responses) == ({(TENANT, "conv_1"): 1}, responses)


async def test_nothing_is_dead_lettered_while_the_schema_is_wrong(writing: "asyncpg.Connection[Any]") -> None:
    await writing.execute("ALTER TABLE items RENAME TO elsewhere")
    try:
        with pytest.raises(asyncpg.UndefinedTableError):
            await store(writing, item(1), POISON["no JSON"])
    finally:
        await writing.execute("ALTER TABLE elsewhere RENAME TO items")
    assert await letters(writing) == []
