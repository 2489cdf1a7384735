"""What a client may read: the hot copy where there is one, else PostgreSQL; reads go on while Redis is away."""

from collections.abc import Awaitable
from typing import Any, Literal, TypeVar

import orjson
from redis.exceptions import RedisError

from api import errors, store
from api.connections import Connections
from api.errors import ApiError
from api.history import changes
from api.history.changes import HotConversation, HotResponse
from api.loading import rebuild
from core.store import UNREACHABLE

Json = dict[str, Any]
Items = list[tuple[str, bytes]]
T = TypeVar("T")


async def hot_or_cold(reading: Awaitable[T]) -> T | Literal["away"]:
    """A read of Redis; "away" while nobody can tell whether it has more than PostgreSQL."""
    try:
        return await reading
    except RedisError:
        return "away"


def missing(hot: object, kind: str, wanted: str, param: str) -> ApiError:
    """What PostgreSQL does not have exists nowhere, unless Redis could not be asked."""
    if hot == "away":
        return errors.store_unavailable("Redis can't be reached, and PostgreSQL does not have this yet")
    return errors.not_found(kind, wanted, param)


async def stored(reading: Awaitable[T]) -> T:
    """A read of PostgreSQL; raises ApiError 503 while it is away."""
    try:
        return await reading
    except UNREACHABLE as error:
        raise errors.store_unavailable("this is not in memory and PostgreSQL can't be reached") from error


async def hot_conversation(
    connections: Connections, tenant: str, thread: str, *, items: bool
) -> HotConversation | Literal["gone", "cold", "away"]:
    """The hot copy, completed first where Redis has lost something since it was made. Raises ApiError 503."""
    while True:
        hot = await hot_or_cold(changes.read(connections.redis, tenant, thread, items=items))
        if hot != "doubtful":
            return hot
        await rebuild(connections, tenant, thread, "conversation_id")


async def conversation(connections: Connections, tenant: str, conversation_id: str) -> Json:
    """The conversation object. Raises ApiError 404, 503."""
    hot = await hot_conversation(connections, tenant, conversation_id, items=False)
    if hot == "gone":
        raise errors.not_found("conversation", conversation_id, "conversation_id")
    if isinstance(hot, HotConversation):
        return conversation_body(conversation_id, hot.created_at, hot.metadata)
    row = await stored(store.conversation_row(connections.store, tenant, conversation_id))
    if row is None:
        raise missing(hot, "conversation", conversation_id, "conversation_id")
    return conversation_body(conversation_id, row.created_at, row.metadata)


def conversation_body(conversation_id: str, created_at: int, metadata: bytes) -> Json:
    return {
        "id": conversation_id,
        "object": "conversation",
        "created_at": created_at,
        "metadata": orjson.Fragment(metadata),
    }


def item_id(item: bytes) -> str:
    parsed: Json = orjson.loads(item)
    return str(parsed["id"])


def page(items: Items, after: str | None, limit: int, order: str) -> Json:
    """One page of items that are all at hand, oldest first. Raises ApiError 400 when `after` is none of them."""
    ordered = items if order == "asc" else items[::-1]
    start = 0
    if after is not None:
        start = next((index + 1 for index, (known, _) in enumerate(ordered) if known == after), -1)
        if start < 0:
            raise errors.unknown_cursor(after)
    return list_body(ordered[start : start + limit + 1], limit)


def list_body(items: Items, limit: int) -> Json:
    """`items` holds one more than `limit` when there are more."""
    shown = items[:limit]
    return {
        "object": "list",
        "data": [orjson.Fragment(body) for _, body in shown],
        "first_id": shown[0][0] if shown else None,
        "last_id": shown[-1][0] if shown else None,
        "has_more": len(items) > limit,
    }


async def conversation_items(
    connections: Connections, tenant: str, conversation_id: str, after: str | None, limit: int, order: str
) -> Json:
    """A page of a conversation's items. Raises ApiError 400, 404, 503."""
    hot = await hot_conversation(connections, tenant, conversation_id, items=True)
    if hot == "gone":
        raise errors.not_found("conversation", conversation_id, "conversation_id")
    if isinstance(hot, HotConversation):
        return page([(item_id(body), body) for _, body in hot.items], after, limit, order)
    listed = await stored(
        store.list_items(connections.store, tenant, conversation_id, after, limit + 1, order == "desc")
    )
    if listed is None or (listed == "unknown_cursor" and hot == "away"):
        raise missing(hot, "conversation", conversation_id, "conversation_id")
    if listed == "unknown_cursor":
        raise errors.unknown_cursor(after or "")
    return list_body(listed, limit)


async def conversation_item(connections: Connections, tenant: str, conversation_id: str, wanted: str) -> bytes:
    """One item as JSON. Raises ApiError 404, 503."""
    hot = await hot_conversation(connections, tenant, conversation_id, items=True)
    found: bytes | None = None
    if isinstance(hot, HotConversation):
        found = next((body for _, body in hot.items if item_id(body) == wanted), None)
    elif hot != "gone":
        found = await stored(store.find_item(connections.store, tenant, conversation_id, wanted))
    if found is None:
        raise missing(hot, "item", wanted, "item_id")
    return found


async def hot_response(
    connections: Connections, tenant: str, response_id: str
) -> HotResponse | Literal["gone", "cold", "away"]:
    """As Redis has it, unless it has lost something since and PostgreSQL knows better. Raises ApiError 503."""
    hot = await hot_or_cold(changes.read_response(connections.redis, tenant, response_id))
    if not isinstance(hot, HotResponse) or not hot.doubtful:
        return hot
    if await stored(store.response_span(connections.store, tenant, response_id)) is not None:
        return "cold"
    deleted = await stored(store.deleted_of(connections.store, tenant, hot.thread))
    return "gone" if {("response", response_id), ("conversation", hot.thread)} & set(deleted) else hot


async def response(connections: Connections, tenant: str, response_id: str) -> bytes:
    """A response as JSON, running or ended. Raises ApiError 404, 503."""
    hot = await hot_response(connections, tenant, response_id)
    if hot == "gone":
        raise errors.not_found("response", response_id, "response_id")
    if isinstance(hot, HotResponse):
        return hot.body or _running_body(hot)
    kept = await _stored_response(connections, tenant, response_id, hot)
    output = [orjson.Fragment(body) for _, body in kept.output]
    return orjson.dumps({**orjson.loads(kept.body), "output": output})


def _running_body(hot: HotResponse) -> bytes:
    body: Json = orjson.loads(hot.request or b"{}")["response"]
    # One in the background is queued until a process has told of it.
    return orjson.dumps({**body, "status": "in_progress"} if hot.logged else body)


async def response_inputs(connections: Connections, tenant: str, response_id: str) -> Items:
    """The input items that a response brought, oldest first. Raises ApiError 404, 503."""
    hot = await hot_response(connections, tenant, response_id)
    if hot == "gone":
        raise errors.not_found("response", response_id, "response_id")
    if isinstance(hot, HotResponse):
        known = await _hot_inputs(connections, tenant, hot)
        if isinstance(known, list):
            return known
        hot = known
    return (await _stored_response(connections, tenant, response_id, hot)).input


async def _stored_response(
    connections: Connections, tenant: str, response_id: str, hot: Literal["cold", "away"]
) -> store.StoredResponse:
    """Raises ApiError 404, also while the delete of its conversation waits to be stored, and 503."""
    kept = await stored(store.load_response(connections.store, tenant, response_id))
    if kept is not None:
        thread = await hot_conversation(connections, tenant, kept.conversation, items=False)
        if thread != "gone":
            return kept
    raise missing(hot, "response", response_id, "response_id")


async def _hot_inputs(connections: Connections, tenant: str, hot: HotResponse) -> Items | Literal["cold", "away"]:
    if hot.first is None or hot.end is None:
        inputs = orjson.loads(hot.input) if hot.input else orjson.loads(hot.request or b"{}")["input"]
        return [(item["id"], orjson.dumps(item)) for item in inputs]
    thread = await hot_conversation(connections, tenant, hot.thread, items=True)
    if not isinstance(thread, HotConversation):
        return "away" if thread == "away" else "cold"
    last = hot.first + hot.input_count - 1
    return [(item_id(body), body) for position, body in thread.items if hot.first <= position <= last]
