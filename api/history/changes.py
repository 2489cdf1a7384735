"""Reading and changing the hot copy of a conversation without a turn."""

import secrets
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis

from api.history.scripts import script
from api.idempotency import NOT_IDEMPOTENT, Idempotency
from api.store import StoredConversation
from core import tracing
from core.entry import Kind, item_tail, tail, trace_word
from core.queue import Receipt, receipt

# A loader that takes longer has lost its right to warm.
TICKET_SECONDS = 5

_read = script("read", allow_oom=True)
_read_page = script("read_page", allow_oom=True)
_read_response = script("read_response", allow_oom=True)
_take_ticket = script("take_ticket", allow_oom=False)
_warm = script("warm", allow_oom=False)
_append = script("append", allow_oom=False)
_delete_conversation = script("delete_conversation", allow_oom=True)
_delete_item = script("delete_item", allow_oom=True)
_delete_response = script("delete_response", allow_oom=True)


def _token() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class HotConversation:
    """`items` are (position, JSON), oldest first; empty when they were not asked for."""

    created_at: int
    metadata: bytes
    items: list[tuple[int, bytes]]


NotHot = Literal["gone", "cold", "doubtful"]


async def read(redis: Redis, tenant: str, thread: str, *, items: bool) -> HotConversation | NotHot:
    """`doubtful`: Redis has lost something since the copy was made; it must be completed first (api/loading.py)."""
    reply = await _read(redis, tenant, thread, int(items))
    if reply[0] != b"ok":
        outcome: NotHot = reply[0].decode()
        return outcome
    created, metadata, _ = reply[1]
    return HotConversation(int(created or 0), metadata or b"{}", _positioned(reply[2]))


def _positioned(elements: list[bytes]) -> list[tuple[int, bytes]]:
    parts = (element.partition(b" ") for element in elements)
    return [(int(at), item) for at, _, item in parts]


async def read_page(
    redis: Redis, tenant: str, thread: str, after: int, max_bytes: int
) -> list[tuple[int, bytes]] | NotHot:
    """The next items behind the position `after`: some `max_bytes` of them, none at the end."""
    reply = await _read_page(redis, tenant, thread, after, max_bytes)
    if reply[0] != b"ok":
        outcome: NotHot = reply[0].decode()
        return outcome
    return _positioned(reply[1])


@dataclass(frozen=True, slots=True)
class HotResponse:
    """`body` once it has ended, else `request`: what a successor would close it from.

    Its items stand at the positions from `first` to `end` of the thread, the first `input_count` of them its input;
    a response that left the conversation as it was has no positions but its `input` as a JSON array. `logged`: it runs,
    and has events already. `doubtful`: Redis has lost something since it was begun, so PostgreSQL must be asked too.
    """

    status: str
    thread: str
    body: bytes | None
    request: bytes | None
    first: int | None
    end: int | None
    input_count: int
    input: bytes | None
    logged: bool
    doubtful: bool


async def read_response(redis: Redis, tenant: str, response: str) -> HotResponse | Literal["gone", "cold"]:
    reply = await _read_response(redis, tenant, response)
    if len(reply) == 1:
        outcome: Literal["gone", "cold"] = reply[0].decode()
        return outcome
    status, thread, body, request, first, end, input_count, kept, logged, doubtful = reply
    return HotResponse(
        status=status.decode(),
        thread=thread.decode(),
        body=body,
        request=request,
        first=int(first) if first else None,
        end=int(end) if end else None,
        input_count=int(input_count or 0),
        input=kept,
        logged=bool(logged),
        doubtful=bool(doubtful),
    )


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to rebuild a conversation from PostgreSQL.

    `doubtful`: what is left of it in Redis must be completed; it inherits from `parent` (id, position), if from any.
    """

    token: str
    doubtful: bool
    parent: tuple[str, int] | None


async def take_ticket(redis: Redis, tenant: str, thread: str) -> Ticket | None:
    """None while another has the ticket, or when the conversation is hot by now."""
    token = _token()
    outcome, *parent = await _take_ticket(redis, tenant, thread, token, TICKET_SECONDS)
    if not outcome:
        return None
    return Ticket(token, outcome == 2, (parent[0].decode(), int(parent[1])) if parent and parent[0] else None)


async def drop_ticket(redis: Redis, tenant: str, thread: str) -> None:
    await redis.delete(f"load:{tenant}:{thread}")


async def warm(
    redis: Redis, tenant: str, thread: str, ticket: str, stored: StoredConversation, expiration_seconds: int
) -> None:
    """Put a stored conversation back, unless the ticket was lost to a writer or the keys are there already."""
    await _warm(
        redis,
        tenant,
        thread,
        ticket,
        expiration_seconds,
        stored.created_at,
        stored.metadata,
        stored.last_position,
        stored.last_response or "",
        int(stored.hidden),
        *(b"%d %b" % (position, item) for position, item in stored.items),
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """`reason` is `ok`, or why nothing was changed; `detail` the creation time (s), or the running response's id.

    `replay`: an Idempotency-Key was used for the same request before; `detail` is the creation time and its `ids`.
    `queued` is what went into the queue; None after a repetition of what was done before.
    """

    reason: Literal[
        "ok", "gone", "cold", "locked", "queue_full", "no_item", "running", "replay", "idempotency_key_reused"
    ]
    detail: str
    queued: Receipt | None


def _changed(reply: list[Any]) -> Changed:
    detail = reply[1].decode() if len(reply) > 1 and reply[1] is not None else ""
    return Changed(reply[0].decode(), detail, receipt(reply[2]) if len(reply) > 2 else None)


async def append(
    redis: Redis,
    tenant: str,
    conversation: str,
    items: list[tuple[str, bytes]],
    queue_limit: int,
    *,
    created_at: int | None = None,
    metadata: bytes = b"",
    idempotency: Idempotency = NOT_IDEMPOTENT,
    ids: str = "",
) -> Changed:
    """Add items (id, JSON) and, when given, replace the metadata; with `created_at` the conversation is made new.

    `ids` are those that the answer needs beside the request, for its repetition.
    """
    once = (idempotency.key, idempotency.request_hash, ids, idempotency.seconds)
    trace = tracing.carried()
    # The entry of the metadata, if there is one, is the first.
    tails = [
        item_tail(item_id, None, body, "" if metadata or index else trace)
        for index, (item_id, body) in enumerate(items)
    ]
    create, word = created_at is not None, trace_word(trace)
    reply = await _append(
        redis, tenant, conversation, int(create), queue_limit, created_at or 0, metadata, _token(), *once, word, *tails
    )
    return _changed(reply)


async def delete_conversation(redis: Redis, tenant: str, conversation: str) -> Changed:
    """The hot copy goes at once; the bodies and event logs of its responses when the worker has stored the delete."""
    entry = tail(Kind.DELETE_CONVERSATION, conversation, trace=tracing.carried())
    return _changed(await _delete_conversation(redis, tenant, conversation, _token(), entry))


async def delete_item(redis: Redis, tenant: str, conversation: str, item: str) -> Changed:
    entry = tail(Kind.DELETE_ITEM, item, trace=tracing.carried())
    return _changed(await _delete_item(redis, tenant, conversation, _token(), item, entry))


async def delete_response(
    redis: Redis, tenant: str, response: str, thread: str, first: int | None, last: int | None
) -> Changed:
    """`thread`, `first` and `last` (positions) are PostgreSQL's answer about a response that Redis does not know."""
    entry = tail(Kind.DELETE_RESPONSE, response, trace=tracing.carried())
    bounds = ("" if first is None else first, "" if last is None else last)
    return _changed(await _delete_response(redis, tenant, response, _token(), entry, thread, *bounds))
