"""GET /v1/conversations/{id}/export: a whole conversation, page after page, in the memory of one page."""

from collections.abc import AsyncIterator

import orjson

from api import errors
from api.connections import Connections
from api.history import changes
from api.listing import store
from api.loading import rebuild
from api.reading import conversation, hot_or_cold, stored

# Of a page; its last item may be larger.
PAGE_BYTES = 1024 * 1024


async def export(connections: Connections, tenant: str, conversation_id: str) -> AsyncIterator[bytes]:
    """Lines of JSON: the conversation, then its items, oldest first.

    Positions stay what they are, so a page may come from Redis and the next one from PostgreSQL. Raises ApiError 404,
    also when the conversation is deleted meanwhile, and 503.
    """
    yield orjson.dumps(await conversation(connections, tenant, conversation_id)) + b"\n"
    last = 0
    while page := await _page(connections, tenant, conversation_id, last):
        last = page[-1][0]
        yield b"".join(item + b"\n" for _, item in page)
    # Of one that was deleted meanwhile there are no items either.
    await conversation(connections, tenant, conversation_id)


async def _page(connections: Connections, tenant: str, conversation_id: str, after: int) -> list[tuple[int, bytes]]:
    while True:
        page = await hot_or_cold(changes.read_page(connections.redis, tenant, conversation_id, after, PAGE_BYTES))
        match page:
            case "gone":
                raise errors.not_found("conversation", conversation_id, "conversation_id")
            case "doubtful":
                await rebuild(connections, tenant, conversation_id, "conversation_id")
            case "cold" | "away":
                return await stored(store.page_behind(connections.store, tenant, conversation_id, after, PAGE_BYTES))
            case items:
                return items
