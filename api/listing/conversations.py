"""GET /v1/conversations: each page is read from Redis first and then from PostgreSQL.

In that order nothing falls between the two: what Redis no longer counts as unstored is committed by then. What it does
count is told as Redis has it, and left out of what PostgreSQL tells (docs/adr/0013-lists-while-entries-are-queued.md).
"""

import asyncio

import orjson

from api import errors
from api.connections import Connections
from api.history.unstored import Unstored, UnstoredPage, unstored
from api.listing import store
from api.listing.store import ABOVE_ALL, BELOW_ALL, ListedRow, Part
from api.loading import rebuild
from api.reading import Items, Json, conversation_body, hot_or_cold, list_body, stored
from api.schemas.listing import ConversationQuery

# While PostgreSQL lags for long there may be hundreds of thousands: as many at a time as Redis reads within 2 ms.
CHUNK = 500
# Of items that PostgreSQL may lack, for a search: it makes words of some 10 MB a second.
CHUNK_BYTES = 2 * 1024 * 1024
# A filter may have to look through all of them.
LIST_SECONDS = 8.0


async def conversations(connections: Connections, tenant: str, query: ConversationQuery) -> Json:
    """A page of the tenant's conversations. Raises ApiError 503."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            found = await _found(connections, tenant, query)
    except TimeoutError as error:
        raise errors.store_unavailable("too much is waiting to be stored to look through all of it") from error
    return list_body(found, query.limit)


async def _found(connections: Connections, tenant: str, query: ConversationQuery) -> Items:
    """One more than the page holds, if there are more."""
    found: Items = []
    after, more = query.after, True
    while more and len(found) <= query.limit:
        page = await _unstored(connections, tenant, after, query)
        more = page.more
        end = page.found[-1].id if more else ""
        part = _part(query, after, end, [one.id for one in page.found])
        missing = query.limit + 1 - len(found)
        rows = await stored(store.listed(connections.store, tenant, part, query.order, missing))
        matching = await _matching(connections, tenant, page, query)
        rows += [ListedRow(one.id, one.created_at, one.metadata) for one in matching]
        rows.sort(key=lambda row: row.id, reverse=query.order == "desc")
        found += [(row.id, orjson.dumps(conversation_body(row.id, row.created_at, row.metadata))) for row in rows]
        after = end
    return found[: query.limit + 1]


async def _unstored(connections: Connections, tenant: str, after: str, query: ConversationQuery) -> UnstoredPage:
    """What Redis has beyond PostgreSQL, completed first where it has lost something; nothing while it is away."""
    max_bytes = 0 if query.words is None else CHUNK_BYTES
    while True:
        page = await hot_or_cold(unstored(connections.redis, tenant, after, query.order, CHUNK, max_bytes))
        if page == "away":
            return UnstoredPage([], more=False)
        doubtful = [one for one in page.found if one.state == "doubtful"]
        if not doubtful:
            return page
        for one in doubtful:
            await rebuild(connections, tenant, one.id, "conversation_id")


async def _matching(
    connections: Connections, tenant: str, page: UnstoredPage, query: ConversationQuery
) -> list[Unstored]:
    """Those of a page that the query asks for. PostgreSQL looks for words in what it lacks just as in what it has."""
    found = [
        one for one in page.found if one.state == "ok" and query.metadata.items() <= orjson.loads(one.metadata).items()
    ]
    if query.words is None or not found:
        return found
    items = [(one.id, item) for one in found for item in one.items]
    known = [(one.id, one.since) for one in found]
    names = await stored(store.matching(connections.store, tenant, query.words, items, known))
    return [one for one in found if one.id in names]


def _part(query: ConversationQuery, after: str, end: str, left_out: list[str]) -> Part:
    metadata = orjson.dumps(query.metadata) if query.metadata else None
    above, below = (after, end) if query.order == "asc" else (end, after)
    return Part(above or BELOW_ALL, below or ABOVE_ALL, left_out, metadata, query.words)
