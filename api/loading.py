"""Rebuilding a hot conversation from PostgreSQL: one query, once for all who wait."""

import asyncio

from api import history_changes, metrics, store
from api.connections import Connections
from api.errors import not_found, store_unavailable
from core.store import UNREACHABLE

# How often those who wait for another loader look again.
WAIT_SECONDS = 0.02


async def rebuild(connections: Connections, tenant: str, thread: str, param: str) -> None:
    """Make a cold conversation hot, or wait a moment for another loader; the caller tries its script again.

    Raises ApiError: 404 when PostgreSQL does not know it either, 503 when PostgreSQL can't be asked.
    """
    ticket = await history_changes.take_ticket(connections.redis, tenant, thread)
    if ticket is None:
        await asyncio.sleep(WAIT_SECONDS)
        return
    try:
        stored = await store.load_conversation(connections.store, tenant, thread)
    except UNREACHABLE as error:
        await history_changes.drop_ticket(connections.redis, tenant, thread)
        raise store_unavailable("this conversation is not in memory and PostgreSQL can't be reached") from error
    if stored is None:
        await history_changes.drop_ticket(connections.redis, tenant, thread)
        raise not_found("conversation", thread, param)
    metrics.REBUILDS.inc()
    expiration = connections.settings.expiration_seconds
    await history_changes.warm(connections.redis, tenant, thread, ticket, stored, expiration)
