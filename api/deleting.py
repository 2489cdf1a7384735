"""Deletes: a tombstone at once for every reader, an entry in the queue for PostgreSQL."""

from api import errors, store
from api.changing import change
from api.connections import Connections
from api.history import changes
from api.loading import rebuild
from api.reading import stored

COLD = ("cold", "doubtful")


async def delete_conversation(connections: Connections, tenant: str, conversation_id: str) -> None:
    """Raises ApiError 404, 503."""
    await change(
        connections,
        tenant,
        conversation_id,
        lambda: changes.delete_conversation(connections.redis, tenant, conversation_id),
    )


async def delete_item(connections: Connections, tenant: str, conversation_id: str, item_id: str) -> None:
    """Raises ApiError 404, 409, 503."""
    changed = await change(
        connections,
        tenant,
        conversation_id,
        lambda: changes.delete_item(connections.redis, tenant, conversation_id, item_id),
    )
    if changed.reason == "no_item":
        raise errors.not_found("item", item_id, "item_id")


async def delete_response(connections: Connections, tenant: str, response_id: str) -> None:
    """Raises ApiError 404, 409, 503. In a hidden thread its items go along."""
    hot = await changes.read_response(connections.redis, tenant, response_id)
    if hot == "gone":
        raise errors.not_found("response", response_id, "response_id")
    if hot != "cold":
        thread, first, last = hot.thread, hot.first, hot.end
    else:
        span = await stored(store.response_span(connections.store, tenant, response_id))
        if span is None:
            raise errors.not_found("response", response_id, "response_id")
        thread, first, last = span.conversation, span.first, span.end
    # Its thread is made hot, so that no later load brings back what PostgreSQL has not deleted yet.
    while first is not None and await changes.read(connections.redis, tenant, thread, items=False) in COLD:
        await rebuild(connections, tenant, thread, "response_id")
    changed = await changes.delete_response(connections.redis, tenant, response_id, thread, first, last)
    connections.ring.keep(connections.epochs, changed.queued)
    if changed.reason == "running":
        raise errors.response_running(response_id)
    if changed.reason == "gone":
        raise errors.not_found("response", response_id, "response_id")
