"""Changing a conversation without a turn: a cold one is made hot first, so that its writers have one order."""

import time
from collections.abc import Awaitable, Callable

import orjson

from api import errors, metrics
from api.connections import Connections
from api.history import changes
from api.history.changes import Changed
from api.idempotency import Idempotency
from api.ids import CONVERSATION, new_id
from api.loading import rebuild
from api.reading import Json, conversation_body
from api.schemas.conversations import CreateConversation, CreateItems, UpdateConversation


async def create_conversation(
    connections: Connections, tenant: str, body: CreateConversation, idempotency: Idempotency
) -> Json:
    conversation_id, created_at = new_id(CONVERSATION), int(time.time())
    metadata = orjson.dumps(body.metadata or {})
    items = [(item["id"], orjson.dumps(item)) for item in body.new_items()]
    limit = connections.settings.queue_limit
    changed = await change(
        connections,
        tenant,
        conversation_id,
        lambda: changes.append(
            connections.redis,
            tenant,
            conversation_id,
            items,
            limit,
            created_at=created_at,
            metadata=metadata,
            idempotency=idempotency,
            ids=conversation_id,
        ),
    )
    if changed.reason == "replay":
        created, _, conversation_id = changed.detail.partition(" ")
        created_at = int(created)
    return conversation_body(conversation_id, created_at, metadata)


async def update_conversation(
    connections: Connections, tenant: str, conversation_id: str, body: UpdateConversation, idempotency: Idempotency
) -> Json:
    metadata = orjson.dumps(body.metadata or {})
    limit = connections.settings.queue_limit
    changed = await change(
        connections,
        tenant,
        conversation_id,
        lambda: changes.append(
            connections.redis, tenant, conversation_id, [], limit, metadata=metadata, idempotency=idempotency
        ),
    )
    return conversation_body(conversation_id, int(changed.detail), metadata)


async def create_items(
    connections: Connections, tenant: str, conversation_id: str, body: CreateItems, idempotency: Idempotency
) -> Json:
    made = body.new_items()
    items = [(item["id"], orjson.dumps(item)) for item in made]
    limit, ids = connections.settings.queue_limit, " ".join(item_id for item_id, _ in items)
    changed = await change(
        connections,
        tenant,
        conversation_id,
        lambda: changes.append(
            connections.redis, tenant, conversation_id, items, limit, idempotency=idempotency, ids=ids
        ),
    )
    if changed.reason == "replay":
        # The same request makes the same items, but for their ids.
        earlier = changed.detail.split(" ")[1:]
        items = [(one, orjson.dumps({**item, "id": one})) for one, item in zip(earlier, made, strict=True)]
    return {
        "object": "list",
        "data": [orjson.Fragment(item) for _, item in items],
        "first_id": items[0][0],
        "last_id": items[-1][0],
        "has_more": False,
    }


async def change(
    connections: Connections, tenant: str, conversation_id: str, attempt: Callable[[], Awaitable[Changed]]
) -> Changed:
    """Try a change until the conversation is hot. Raises ApiError 404, 409, 503."""
    while True:
        changed = await attempt()
        match changed.reason:
            case "ok" | "no_item" | "replay" as reason:
                if reason == "replay":
                    metrics.REPLAYS.inc()
                connections.ring.keep(connections.epochs, changed.queued)
                return changed
            case "cold":
                await rebuild(connections, tenant, conversation_id, "conversation_id")
            case "locked":
                raise errors.conversation_locked(conversation_id, changed.detail)
            case "queue_full":
                raise errors.queue_full()
            case "idempotency_key_reused":
                raise errors.idempotency_key_reused()
            case _:
                raise errors.not_found("conversation", conversation_id, "conversation_id")
