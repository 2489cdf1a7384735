"""The API's reads of what the worker wrote."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from api import store as reads
from core.settings import PostgresSettings
from core.store import open_pool
from tests.entries import FIRST_POSITION, TENANT, conversation, header, item, response, store, writing_to
from tests.running import Postgres

pytestmark = pytest.mark.anyio


def fork(name: str, number: int, parent: str, after: int) -> bytes:
    """A thread that inherits from `parent` what comes no later than the item `after`."""
    entry = conversation(name, number, {}, parent=parent)
    return entry.replace(
        b'"parent_position":%d' % (FIRST_POSITION + number), b'"parent_position":%d' % (FIRST_POSITION + after)
    )


@pytest.fixture(scope="module")
async def pool(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Pool[Any]"]:
    """A conversation of 4 items, a hidden thread of 2 turns, two generations of forks, a response without a trace."""
    kept = orjson.dumps({"id": "resp_failed", "status": "failed", "created_at": 5, "input": [{"id": "msg_x", "a": 1}]})
    async with writing_to(postgres, database) as connection:
        await store(
            connection,
            conversation("conv_1", 0, {"topic": "tea"}),
            *(item(number) for number in range(1, 5)),
            conversation("conv_empty", 0, {}),
            *(item(number, "thr_1", f"resp_{number - number % 2}") for number in range(10, 14)),
            response(10, 1, 1, "thr_1"),
            response(12, 1, 1, "thr_1"),
            fork("thr_2", 20, "thr_1", 11),
            *(item(number, "thr_2", "resp_20") for number in range(20, 22)),
            response(20, 1, 1, "thr_2"),
            fork("thr_3", 30, "thr_2", 21),
            *(item(number, "thr_3", "resp_30") for number in range(30, 32)),
            response(30, 1, 1, "thr_3"),
            header("thr_1", 0) + b"response resp_failed 0 0\n" + kept,
        )
    settings = PostgresSettings(postgres.host, postgres.port, postgres.user, "", database)
    async with await open_pool(settings, 2, "test") as opened:
        yield opened


def numbers(items: list[tuple[int, bytes]]) -> list[int]:
    assert all(orjson.loads(body)["id"] == f"msg_{position - FIRST_POSITION}" for position, body in items)
    return [position - FIRST_POSITION for position, _ in items]


async def test_a_conversation(pool: "asyncpg.Pool[Any]") -> None:
    loaded = await reads.load_conversation(pool, TENANT, "conv_1")
    assert loaded is not None
    assert (loaded.created_at, orjson.loads(loaded.metadata), loaded.hidden) == (1_790_000_000, {"topic": "tea"}, False)
    assert (numbers(loaded.items), loaded.last_position) == ([1, 2, 3, 4], FIRST_POSITION + 4)
    assert loaded.last_response is None


async def test_an_empty_conversation(pool: "asyncpg.Pool[Any]") -> None:
    loaded = await reads.load_conversation(pool, TENANT, "conv_empty")
    assert loaded is not None
    assert (loaded.items, loaded.last_position) == ([], FIRST_POSITION)


@pytest.mark.parametrize(
    ("thread", "items", "last_response", "parent"),
    [
        ("thr_1", [10, 11, 12, 13], "resp_12", None),
        ("thr_2", [10, 11, 20, 21], "resp_20", "thr_1"),
        ("thr_3", [10, 11, 20, 21, 30, 31], "resp_30", "thr_2"),
    ],
)
async def test_a_thread_with_what_it_inherits(
    pool: "asyncpg.Pool[Any]", thread: str, items: list[int], last_response: str, parent: str | None
) -> None:
    loaded = await reads.load_conversation(pool, TENANT, thread)
    assert loaded is not None
    assert numbers(loaded.items) == items
    assert (loaded.last_response, loaded.hidden) == (last_response, True)
    assert [name for name, _ in loaded.ancestors][:1] == ([parent] if parent else [])
    span = await reads.response_span(pool, TENANT, last_response)
    assert span == reads.ResponseSpan(thread, FIRST_POSITION + items[-2], FIRST_POSITION + items[-1])


async def test_a_response(pool: "asyncpg.Pool[Any]") -> None:
    loaded = await reads.load_response(pool, TENANT, "resp_20")
    assert loaded is not None
    assert loaded.conversation == "thr_2"
    assert orjson.loads(loaded.body)["id"] == "resp_20"
    assert ([name for name, _ in loaded.input], [name for name, _ in loaded.output]) == (["msg_20"], ["msg_21"])


async def test_a_response_that_left_its_thread_as_it_was(pool: "asyncpg.Pool[Any]") -> None:
    loaded = await reads.load_response(pool, TENANT, "resp_failed")
    assert loaded is not None
    assert orjson.loads(loaded.body) == {"id": "resp_failed", "status": "failed", "created_at": 5}
    assert [(name, orjson.loads(body)) for name, body in loaded.input] == [("msg_x", {"id": "msg_x", "a": 1})]
    assert loaded.output == []
    assert await reads.response_span(pool, TENANT, "resp_failed") == reads.ResponseSpan("thr_1", None, None)


@pytest.mark.parametrize(
    ("after", "descending", "expected"),
    [(None, True, [4, 3]), (None, False, [1, 2]), ("msg_3", True, [2, 1]), ("msg_3", False, [4]), ("msg_4", False, [])],
)
async def test_pages(pool: "asyncpg.Pool[Any]", after: str | None, expected: list[int], *, descending: bool) -> None:
    listed = await reads.list_items(pool, TENANT, "conv_1", after, 2, descending)
    assert listed is not None
    assert listed != "unknown_cursor"
    assert [name for name, _ in listed] == [f"msg_{number}" for number in expected]


@pytest.mark.parametrize("after", ["msg_10", "nothing"])
async def test_a_page_behind_an_item_of_nowhere(pool: "asyncpg.Pool[Any]", after: str) -> None:
    assert await reads.list_items(pool, TENANT, "conv_1", after, 2, descending=True) == "unknown_cursor"


async def test_single_items(pool: "asyncpg.Pool[Any]") -> None:
    found = await reads.find_item(pool, TENANT, "conv_1", "msg_2")
    assert found is not None
    assert orjson.loads(found)["id"] == "msg_2"
    assert await reads.find_item(pool, TENANT, "conv_1", "msg_10") is None
    assert await reads.item_by_id(pool, TENANT, "msg_10") is not None
    row = await reads.conversation_row(pool, TENANT, "conv_1")
    assert row is not None
    assert orjson.loads(row.metadata) == {"topic": "tea"}


@pytest.mark.parametrize("tenant", [TENANT, "other"])
async def test_what_is_unknown_or_of_another_tenant(pool: "asyncpg.Pool[Any]", tenant: str) -> None:
    known = ("conv_1", "thr_1", "resp_20", "msg_2") if tenant != TENANT else ("conv_x", "thr_x", "resp_x", "msg_x")
    conversation_id, thread, response_id, item_id = known
    assert await reads.load_conversation(pool, tenant, conversation_id) is None
    assert await reads.load_conversation(pool, tenant, thread) is None
    assert await reads.response_span(pool, tenant, response_id) is None
    assert await reads.load_response(pool, tenant, response_id) is None
    assert await reads.list_items(pool, tenant, conversation_id, None, 2, descending=True) is None
    assert await reads.find_item(pool, tenant, conversation_id, item_id) is None
    assert await reads.item_by_id(pool, tenant, item_id) is None
    assert await reads.conversation_row(pool, tenant, conversation_id) is None


async def test_a_hidden_thread_is_no_conversation(pool: "asyncpg.Pool[Any]") -> None:
    assert await reads.conversation_row(pool, TENANT, "thr_2") is None
    assert await reads.list_items(pool, TENANT, "thr_2", None, 2, descending=True) is None
    assert await reads.find_item(pool, TENANT, "thr_2", "msg_20") is None
