"""Making a question smaller before it is asked: a summary in the place of old turns, or without them."""

from collections.abc import Awaitable, Callable
from typing import Any

from api.schemas.responses import CreateResponse
from api.turn.answer import Answer
from api.turn.compaction import compacted
from api.turn.fitting import relay_fitting
from api.upstream.exchange import Ask
from api.upstream.routing import Routing

Json = dict[str, Any]


async def relay_shaped(
    upstream: Routing,
    request: CreateResponse,
    ask: Ask,
    items: list[Json],
    newest: int,
    answer: Answer,
    relay: Callable[[Ask], Awaitable[None]],
) -> None:
    """`relay` the question as the request's `context_management` and `truncation` shape it.

    `items` are those that it was made of; the `newest` of them, which the client has just sent, always stay.
    Raises UpstreamError.
    """
    if request.compact_threshold is not None:
        ask = await compacted(upstream, ask, request.instructions, items, newest, answer, request.compact_threshold)
    if request.truncation == "auto":
        await relay_fitting(upstream, ask, newest, answer, relay)
    else:
        await relay(ask)
