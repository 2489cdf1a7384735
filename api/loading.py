"""Rebuilding a hot conversation from PostgreSQL: one query, once for all who wait."""

import asyncio
from dataclasses import replace

from api import metrics, store
from api.connections import Connections
from api.errors import not_found, store_unavailable
from api.history import changes, losses
from api.history.changes import HotConversation, Ticket
from api.history.losses import NOTHING_STORED
from api.store import StoredConversation
from core.store import UNREACHABLE

# How often those who wait for another loader look again.
WAIT_SECONDS = 0.02


async def rebuild(connections: Connections, tenant: str, thread: str, param: str) -> None:
    """Make a cold conversation hot, or wait a moment for another loader; the caller tries its script again.

    Raises ApiError: 404 when PostgreSQL does not know it either, 503 when PostgreSQL can't be asked.
    """
    ticket = await changes.take_ticket(connections.redis, tenant, thread)
    if ticket is None:
        await asyncio.sleep(WAIT_SECONDS)
        return
    try:
        if ticket.doubtful:
            await _complete(connections, tenant, thread, ticket, param)
            return
        stored = await store.load_conversation(connections.store, tenant, thread)
    except UNREACHABLE as error:
        await changes.drop_ticket(connections.redis, tenant, thread)
        raise store_unavailable("this conversation is not in memory and PostgreSQL can't be reached") from error
    if stored is None:
        await changes.drop_ticket(connections.redis, tenant, thread)
        raise not_found("conversation", thread, param)
    stored = await _with_unstored(connections, tenant, stored, param)
    metrics.REBUILDS.inc()
    expiration = connections.settings.expiration_seconds
    await changes.warm(connections.redis, tenant, thread, ticket.token, stored, expiration)


async def _with_unstored(
    connections: Connections, tenant: str, stored: StoredConversation, param: str
) -> StoredConversation:
    """What a branch inherits may still be queued: then its nearest hot ancestor has it, and can't be evicted.

    Of a deleted ancestor nothing is inherited any more.
    """
    for ancestor, end in stored.ancestors:
        while (hot := await changes.read(connections.redis, tenant, ancestor, items=True)) == "doubtful":
            await rebuild(connections, tenant, ancestor, param)
        if hot == "cold":
            continue
        inherited = [one for one in hot.items if one[0] <= end] if isinstance(hot, HotConversation) else []
        return replace(stored, items=[*inherited, *(one for one in stored.items if one[0] > end)])
    return stored


async def _complete(connections: Connections, tenant: str, thread: str, ticket: Ticket, param: str) -> None:
    stored = await store.load_conversation(connections.store, tenant, thread)
    if stored is None and ticket.parent is not None:
        stored = await _inherited(connections, tenant, *ticket.parent)
    if stored is not None:
        stored = await _with_unstored(connections, tenant, stored, param)
    deleted = await store.deleted_of(connections.store, tenant, thread)
    expiration = connections.settings.expiration_seconds
    await losses.complete(connections.redis, tenant, thread, ticket.token, stored, deleted, expiration)


async def _inherited(connections: Connections, tenant: str, parent: str, upto: int) -> StoredConversation:
    """What a branch has that is not stored yet itself."""
    stored = await store.load_conversation(connections.store, tenant, parent) or NOTHING_STORED
    return replace(
        stored,
        ancestors=[(parent, upto), *stored.ancestors],
        items=[(position, item) for position, item in stored.items if position <= upto],
        last_position=upto,
        last_response="",
        created_at=0,
    )
