"""The first step of a turn: begin, and whatever must be mended before it succeeds."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import NoReturn

from redis.exceptions import RedisError

from api import errors, metrics, store
from api.connections import Connections
from api.history import steps
from api.history.steps import Begun, Opening, Refused
from api.ids import CONVERSATION
from api.loading import rebuild
from api.turn.abandoned import give_back
from api.turn.orphans import close_orphan
from core.store import UNREACHABLE

PLAIN_REFUSALS = {"queue_full": errors.queue_full, "idempotency_key_reused": errors.idempotency_key_reused}
# Begin is tried again after a load or after closing an orphan; longer than this nobody should wait for it.
OPEN_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Replay(Exception):  # noqa: N818 - not an error: this response exists already and is given instead
    """The Idempotency-Key was used with the same body before."""

    response: str


def new_token() -> str:
    return secrets.token_hex(16)


async def open_turn(connections: Connections, opening: Opening) -> Begun:
    """Take the conversation's lock and read its history. Raises ApiError, or Replay for a repeated Idempotency-Key."""
    if opening.conversation:
        check_conversation(opening.conversation)
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            return await _open(connections, opening)
    except RedisError:
        connections.tasks.create_task(give_back(connections, opening))
        raise
    except TimeoutError as error:
        connections.tasks.create_task(give_back(connections, opening))
        raise errors.store_unavailable("the conversation could not be loaded in time") from error


async def _open(connections: Connections, opening: Opening) -> Begun:
    """Begin, and begin again after mending what was in the way."""
    limit = connections.settings.queue_limit
    previous_thread, previous_end = "", None
    missed = False
    while True:
        outcome = await steps.begin(connections.lanes, opening, limit, previous_thread, previous_end)
        if isinstance(outcome, Begun):
            if opening.conversation or opening.previous_response:
                (metrics.HISTORY_MISSES if missed else metrics.HISTORY_HITS).inc()
            return outcome
        missed = missed or outcome.reason in ("cold", "response_cold")
        match outcome.reason:
            case "cold":
                param = "conversation" if opening.conversation else "previous_response_id"
                await rebuild(connections, opening.tenant, outcome.detail, param)
            case "response_cold":
                previous_thread, previous_end = await _stored_end(connections, opening)
            case "expired" if not connections.truce.holds:
                await close_orphan(connections, opening.tenant, outcome.detail)
            case "late":
                raise errors.store_unavailable("Redis took too long")
            case _:
                _refuse(opening, outcome)


def check_conversation(conversation: str) -> None:
    """Raise ApiError 404 for what is no conversation's id, a hidden thread's among it."""
    if not conversation.startswith(CONVERSATION):
        raise errors.not_found("conversation", conversation, "conversation")


async def _stored_end(connections: Connections, opening: Opening) -> tuple[str, int]:
    """Thread and last position of a previous response that only PostgreSQL knows."""
    previous = opening.previous_response
    try:
        known = await store.response_span(connections.store, opening.tenant, previous)
    except UNREACHABLE as error:
        raise errors.store_unavailable(
            "the previous response is not in memory and PostgreSQL can't be reached"
        ) from error
    if known is None:
        raise errors.not_found("response", previous, "previous_response_id")
    if known.end is None:
        raise errors.previous_response_empty(previous)
    return known.conversation, known.end


def _refuse(opening: Opening, refused: Refused) -> NoReturn:
    conversation, previous = opening.conversation, opening.previous_response
    gone = (
        errors.not_found("conversation", conversation, "conversation")
        if conversation
        else errors.not_found("response", previous, "previous_response_id")
    )
    match refused.reason:
        case "gone" | "response_gone":
            raise gone
        case "response_running":
            raise errors.previous_response_running(previous)
        case "response_empty":
            raise errors.previous_response_empty(previous)
        case "locked" | "expired":
            metrics.LOCKS_REFUSED.inc()
            raise errors.conversation_locked(conversation, refused.detail)
        case "queue_full" | "idempotency_key_reused" as reason:
            refusal = PLAIN_REFUSALS[reason]()
            raise refusal
        case "rate_limited":
            raise opening.allowance.refusal(opening.tenant, opening.tokens)
        case "replay":
            metrics.REPLAYS.inc()
            raise Replay(refused.detail)
        case reason:
            raise AssertionError(f"{reason} was answered before")
