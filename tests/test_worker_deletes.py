"""Deletes in PostgreSQL: what goes along, and that nothing late comes back."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from core.entry import Kind
from tests.entries import TENANT, broken_item, conversation, deletion, forget, item, response, store, writing_to
from tests.running import Postgres

pytestmark = pytest.mark.anyio

CONVERSATION = deletion(Kind.DELETE_CONVERSATION, "conv_1", "conv_1")


@pytest.fixture(scope="module")
async def writing(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    async with writing_to(postgres, database) as connection:
        yield connection


@pytest.fixture(autouse=True)
async def empty(writing: "asyncpg.Connection[Any]") -> None:
    await forget(writing)


async def left(writing: "asyncpg.Connection[Any]") -> list[str]:
    """The ids of all that is stored."""
    rows = await writing.fetch(
        "SELECT id FROM conversations UNION ALL SELECT id FROM items UNION ALL SELECT id FROM responses"
        " UNION ALL SELECT entry_id FROM dead_letters ORDER BY 1"
    )
    return [row["id"] for row in rows]


def turn(number: int, conversation: str) -> list[bytes]:
    """Two items, their response, and an item that PostgreSQL refuses."""
    name = f"resp_{number}"
    refused = broken_item(number + 2, b"{", conversation).replace(b" -\n", f" {name}\n".encode())
    return [item(number, conversation, name), item(number + 1, conversation, name), refused,
            response(number, 1, 2, conversation)]  # fmt: skip


async def test_a_conversation_goes_with_all_that_is_in_it(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, conversation("conv_1", 0, {}), *turn(1, "conv_1"), *turn(11, "conv_2"))
    stored = await store(writing, CONVERSATION)
    assert await left(writing) == ["msg_11", "msg_12", "msg_13", "resp_11"]
    assert stored.removed_responses == {(TENANT, "resp_1")}
    assert stored.deleted_conversations == {(TENANT, "conv_1")}


@pytest.mark.parametrize("order", ["after", "before", "in the same range, after", "in the same range, before"])
async def test_late_entries_of_a_deleted_conversation(writing: "asyncpg.Connection[Any]", order: str) -> None:
    late = [conversation("conv_1", 0, {}), *turn(1, "conv_1")]
    match order:
        case "after":
            await store(writing, CONVERSATION)
            stored = await store(writing, *late, item(20, "conv_2"))
        case "before":
            await store(writing, *late, item(20, "conv_2"))
            stored = await store(writing, CONVERSATION)
        case "in the same range, after":
            stored = await store(writing, CONVERSATION, *late, item(20, "conv_2"))
        case _:
            stored = await store(writing, *late, item(20, "conv_2"), CONVERSATION)
    assert await left(writing) == ["msg_20"]
    assert stored.removed_responses == {(TENANT, "resp_1")}


async def test_the_same_conversation_of_another_tenant_stays(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, item(1), item(2).replace(b"default", b"other"))
    await store(writing, CONVERSATION)
    await store(writing, item(3).replace(b"default", b"other"))
    assert await left(writing) == ["msg_2", "msg_3"]


@pytest.mark.parametrize("order", ["stored", "late"])
@pytest.mark.parametrize(
    ("thread", "kept"),
    [("thr_1", ["msg_11", "msg_12", "msg_13", "resp_11"]),
     ("conv_1", ["msg_1", "msg_11", "msg_12", "msg_13", "msg_2", "msg_3", "resp_11"])],
)  # fmt: skip
async def test_a_response_takes_its_items_along_only_where_nothing_else_shows_them(
    writing: "asyncpg.Connection[Any]", thread: str, kept: list[str], order: str
) -> None:
    deleting = deletion(Kind.DELETE_RESPONSE, "resp_1", thread)
    if order == "late":
        await store(writing, deleting)
    stored = await store(writing, *turn(1, thread), *turn(11, thread))
    if order == "stored":
        stored = await store(writing, deleting)
        assert stored.deleted_responses == {(TENANT, "resp_1")}
    assert await left(writing) == kept
    assert stored.removed_responses == {(TENANT, "resp_1")}


async def test_items_go_although_their_response_is_still_on_its_way(writing: "asyncpg.Connection[Any]") -> None:
    *items, own = turn(1, "thr_1")
    await store(writing, *items)
    await store(writing, deletion(Kind.DELETE_RESPONSE, "resp_1", "thr_1"))
    await store(writing, own)
    assert await left(writing) == []


@pytest.mark.parametrize("order", ["stored", "late"])
async def test_an_item(writing: "asyncpg.Connection[Any]", order: str) -> None:
    deletes = [deletion(Kind.DELETE_ITEM, name, "conv_1") for name in ("msg_2", "msg_3")]
    ranges = [turn(1, "conv_1"), deletes]
    for entries in ranges if order == "stored" else reversed(ranges):
        await store(writing, *entries)
    assert await left(writing) == ["msg_1", "resp_1"]


async def test_a_delete_may_come_again(writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, *turn(1, "conv_1"))
    for _ in range(2):
        stored = await store(writing, CONVERSATION)
        assert stored.deleted_conversations == {(TENANT, "conv_1")}
    assert await left(writing) == []


@pytest.mark.parametrize(
    "deleted",
    [
        CONVERSATION,
        deletion(Kind.DELETE_RESPONSE, "resp_1", "conv_1"),
        deletion(Kind.DELETE_ITEM, "msg_1", "conv_1"),
    ],
    ids=["conversation", "response", "item"],
)
async def test_a_branch_that_comes_after_the_delete_is_read_anew(
    writing: "asyncpg.Connection[Any]", deleted: bytes
) -> None:
    """Redis had copied what was deleted into it, from its parent or from a parent's parent."""
    await store(writing, conversation("conv_1", 0, {}), *turn(1, "conv_1"), conversation("thr_child", 1, {}, "conv_1"))
    await store(writing, deleted)
    late = [conversation("thr_grandchild", 2, {}, "thr_child"), conversation("thr_other", 3, {}, "conv_2")]
    assert (await store(writing, *late)).stale_conversations == {(TENANT, "thr_grandchild")}
    late = [conversation("thr_second", 4, {}, "conv_1")]
    assert (await store(writing, *late)).stale_conversations == {(TENANT, "thr_second")}


async def test_what_inherits_from_a_deleted_conversation_is_read_anew(writing: "asyncpg.Connection[Any]") -> None:
    await store(
        writing,
        conversation("conv_1", 0, {}),
        conversation("thr_child", 1, {}, parent="conv_1"),
        conversation("thr_grandchild", 2, {}, parent="thr_child"),
        conversation("thr_other", 2, {}, parent="conv_2"),
    )
    stored = await store(writing, CONVERSATION)
    assert stored.stale_conversations == {(TENANT, "thr_child"), (TENANT, "thr_grandchild")}
    late = await store(writing, conversation("thr_late", 3, {}, parent="conv_1"))
    assert late.stale_conversations == {(TENANT, "thr_late")}
