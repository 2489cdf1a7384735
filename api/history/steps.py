"""The hot history: the two scripts of a turn and what keeps a running one alive.

Keys and rules are in docs/adr/0001-queue-protocol.md. A conversation's keys are read as one; whatever is missing is a
miss, which api/loading.py answers from PostgreSQL.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from redis.asyncio import Redis

from api.history.scripts import script
from api.idempotency import NOT_IDEMPOTENT, Idempotency
from api.lanes import Lanes
from api.rates import UNLIMITED, Allowance
from core import tracing
from core.queue import Receipt, receipt, run_many

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# The lock of a dead pod expires this long after its last renewal; the next sweep, a second later at most, closes it.
LOCK_MS = 12_000
# Long enough for any client to come back for the end of its stream.
LOG_SECONDS = 3600
# Blobs that a reader of a log gets at once, a second of an answer: a slow one holds no more. Where the provider is very
# fast, each has 1,000 events.
LOG_PAGE = 8

_begin = script("begin", allow_oom=False, counts=True)
_abandon = script("abandon", allow_oom=True)
_finish = script("finish", allow_oom=True, counts=True)
_flush = script("flush", allow_oom=True)
_cancel = script("cancel", allow_oom=True)

Refusal = Literal[
    "cold",
    "response_cold",
    "gone",
    "response_gone",
    "response_running",
    "response_empty",
    "locked",
    "expired",
    "queue_full",
    "replay",
    "idempotency_key_reused",
    "late",
    "rate_limited",
]


@dataclass(frozen=True, slots=True)
class Opening:
    """What begin must know of a turn. Ids are new ones of the caller; `request` is what a successor closes it from."""

    tenant: str
    response: str
    token: str
    new_thread: str
    request: bytes
    conversation: str = ""
    previous_response: str = ""
    idempotency: Idempotency = NOT_IDEMPOTENT
    known_generation: bytes = b""
    known_count: int = 0
    allowance: Allowance = UNLIMITED
    tokens: int = 0
    """Those of the new input, as far as they can be told before it is asked; only where they are limited."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The lock is held; `items` is the history, oldest first, as JSON, without the first `left_out` of it.

    `generation` names the hot list in which the items stand.
    """

    thread: str
    items: list[bytes]
    generation: bytes
    left_out: int


@dataclass(frozen=True, slots=True)
class Refused:
    reason: Refusal
    detail: str


async def begin(
    lanes: Lanes, opening: Opening, queue_limit: int, previous_thread: str = "", previous_end: int | None = None
) -> Begun | Refused:
    """Take the lock and read the history in one step; `previous_*` is what PostgreSQL said about a cold response."""
    reply = await lanes.call(
        _begin,
        opening.tenant,
        opening.response,
        opening.token,
        LOCK_MS,
        queue_limit,
        opening.conversation,
        opening.previous_response,
        previous_thread,
        "" if previous_end is None else previous_end,
        opening.new_thread,
        opening.request,
        opening.idempotency.key,
        opening.idempotency.request_hash,
        opening.idempotency.seconds,
        opening.known_generation,
        opening.known_count,
        opening.allowance.limits.requests,
        opening.allowance.limits.tokens,
        opening.tokens,
    )
    if reply[0] == b"rate_limited":
        opening.allowance.note(reply[1])
    if reply[0] != b"ok":
        return Refused(reply[0].decode(), reply[1].decode() if len(reply) > 1 else "")
    _, thread, elements, generation, left_out, left = reply
    opening.allowance.note(left)
    return Begun(thread.decode(), [item_json(element) for element in elements], generation or b"", left_out)


async def abandon(redis: Redis, opening: Opening, expiration_seconds: int) -> bool:
    """Undo a begin whose reply never came; False when there is nothing to undo (yet)."""
    names = (opening.tenant, opening.response, opening.token)
    return bool(await _abandon(redis, *names, expiration_seconds))


def item_json(element: bytes) -> bytes:
    """An element of a hot list is the position, a space, and the item."""
    return element[element.index(b" ") + 1 :]


@dataclass(frozen=True, slots=True)
class Ending:
    """What finish writes: the final body for readers, the queue's entries, and the events not logged yet."""

    status: str
    body: bytes
    entry: bytes
    items: list[bytes]
    log: bytes
    last_sequence: int
    input_count: int
    input: bytes
    """The input as a JSON array, only of a turn that left the conversation as it was."""
    tokens: int | None = None
    """Those of input and output, as far as anybody knows."""


Outcome = Literal["ok", "lost", "gone"]


async def finish(
    lanes: Lanes, tenant: str, thread: str, response: str, token: str, ending: Ending
) -> tuple[Outcome, Receipt | None]:
    """Append, enqueue, log, free the lock, in one step, and tell what was queued.

    A repetition after a lost reply changes nothing and tells nothing.
    """
    reply = await lanes.call(
        _finish,
        tenant,
        thread,
        response,
        token,
        ending.status,
        ending.body,
        ending.entry,
        ending.log,
        ending.last_sequence,
        LOG_SECONDS,
        ending.input_count,
        ending.input,
        "" if ending.tokens is None else ending.tokens,
        *ending.items,
    )
    outcome: Outcome = reply[0].decode()
    return outcome, receipt(reply[1]) if len(reply) > 1 else None


@dataclass(frozen=True, slots=True)
class Flush:
    """New events of a running turn; without any, the flush only renews the lock."""

    tenant: str
    thread: str
    response: str
    token: str
    log: bytes
    last_sequence: int
    span: "Span | None" = None
    """Of the turn, where this flush is to be traced."""


async def flush(redis: Redis, flushes: list[Flush]) -> list[Literal["ok", "cancel", "lost", "gone", "failed"]]:
    """One round trip for all of them; tells what happened to each turn meanwhile, or that its flush failed."""
    start_ns = time.time_ns()
    replies = await run_many(
        redis,
        [
            (_flush, (one.tenant, one.thread, one.response, one.token, LOCK_MS, one.log, one.last_sequence))
            for one in flushes
        ],
    )
    for one, reply in zip(flushes, replies, strict=True):
        if one.span is not None:
            with tracing.under(one.span):
                _flush.record(redis, start_ns, error=reply if isinstance(reply, Exception) else None)
    return ["failed" if isinstance(reply, Exception) else reply.decode() for reply in replies]


async def cancel(redis: Redis, tenant: str, response: str) -> None:
    """Ask the pod that runs a response to stop; nothing happens to one that has ended."""
    await _cancel(redis, tenant, response)


async def is_running(redis: Redis, tenant: str, response: str) -> bool:
    """False also for one that Redis does not know."""
    status = await redis.hget(f"resp:{tenant}:{response}", "status")
    return status == b"in_progress"


async def has_log(redis: Redis, tenant: str, response: str) -> bool:
    return bool(await redis.exists(f"log:{tenant}:{response}"))


async def log_after(redis: Redis, tenant: str, response: str, sequence: int) -> list[tuple[int, bytes]]:
    """The next blobs of events that hold something after `sequence`: (sequence number of the last event, bytes)."""
    reply = await redis.xrange(f"log:{tenant}:{response}", min=f"{sequence + 2}-0", count=LOG_PAGE)
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
    return [(int(entry_id.partition(b"-")[0]) - 1, fields[b"e"]) for entry_id, fields in entries]
