"""What reads a history and writes nothing: counts, summaries, and turns with `store: false`."""

import asyncio
import contextlib
import time
from typing import Any

import orjson
from redis.exceptions import RedisError

from api import errors, store
from api.connections import Connections
from api.history import changes, rates
from api.history.changes import HotConversation, HotResponse
from api.ids import new_id
from api.loading import rebuild
from api.reading import hot_response, missing, stored
from api.schemas.responses import CompactHistory, CreateResponse, new_items
from api.tenants import Caller
from api.turn.asking import Question, expected_tokens, make_ask, resolve_references
from api.turn.body import COMPLETED, conclude, skeleton, with_output
from api.turn.compaction import summarize
from api.turn.ending import used_tokens
from api.turn.events import terminal_frame
from api.turn.measuring import count_tokens, label_of
from api.turn.memory import compaction_item, context_of
from api.turn.opening import check_conversation
from api.turn.run import announce, run_unstored
from api.turn.running import Turn
from api.turn.turns import ASKING
from api.upstream.exchange import Count, Usage

Json = dict[str, Any]

# A Redis that hangs must not keep waiting what needs it for nothing else.
COUNT_SECONDS = 1.0


async def start_unstored(
    connections: Connections, caller: Caller, request: CreateResponse, past: list[Json] | None = None
) -> Turn:
    """A turn that ends when its client leaves. Without a history it needs no store at all.

    `past`: the history, where the caller has it. Raises ApiError 404, 503, UpstreamError 404.
    """
    turn, question, taken = await _make(connections, caller, request, past)
    turn.task = connections.tasks.create_task(_run(connections, caller, turn, question, taken))
    return turn


async def prepare(connections: Connections, caller: Caller, request: CreateResponse, past: list[Json] | None) -> Turn:
    """A turn that has ended already, without an answer: only something to continue. Raises as `start_unstored`."""
    turn, question, _ = await _make(connections, caller, request, past)
    try:
        _, question.inputs[:] = await resolve_references(connections, turn.tenant, question.past, question.inputs)
        announce(turn, question.start)
        turn.body = with_output(conclude(question.start, COMPLETED, None), [])
        turn.publish(terminal_frame("completed", turn.sequence, turn.body))
        turn.items = question.past + question.inputs
        turn.status = "completed"
    finally:
        turn.end()
    return turn


async def _make(
    connections: Connections, caller: Caller, request: CreateResponse, past: list[Json] | None
) -> tuple[Turn, Question, int]:
    tenant, asked_at = caller.tenant, time.monotonic()
    model = request.model or connections.settings.model
    connections.upstream.route(model)  # nothing is read for a model that nobody answers for
    if past is None:
        past = [orjson.loads(item) for item in await _read_history(connections, tenant, request)]
    inputs = request.new_items()
    taken = await _take(connections, caller, request, inputs)
    response = new_id("resp_")
    turn = Turn(tenant, response, "", "", streamed=request.stream, stored=False)
    turn.course.asked_at = asked_at
    start = skeleton(request, response, model, request.conversation_id)
    return turn, Question(request, start, past, inputs), taken


async def _take(
    connections: Connections, caller: Caller, request: CreateResponse | CompactHistory, inputs: list[Json]
) -> int:
    """Count the request and its tokens, which are answered; while Redis is away nothing counts. Raises ApiError 429."""
    allowance = caller.allowance
    if not allowance.limited:
        return 0
    wanted = expected_tokens(allowance, request, inputs)
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            admitted = await rates.take(connections.lanes, caller.tenant, allowance, wanted)
    except (RedisError, TimeoutError):
        return 0
    if not admitted:
        raise allowance.refusal(caller.tenant, wanted)
    return wanted


async def _run(connections: Connections, caller: Caller, turn: Turn, question: Question, taken: int) -> None:
    await run_unstored(connections, turn, question)
    if caller.allowance.limits.tokens and turn.body is not None:
        final = orjson.loads(turn.body)
        used = used_tokens(final, question.inputs + final["output"])
        await _settle(connections, caller, (used or taken) - taken)


async def _settle(connections: Connections, caller: Caller, over: int) -> None:
    if caller.allowance.limits.tokens:
        with contextlib.suppress(RedisError):
            await rates.settle(connections.lanes, caller.tenant, caller.allowance, over)


async def count_input(connections: Connections, tenant: str, request: CreateResponse) -> Count:
    """What the request would send to its model. Raises ApiError 404, 503, UpstreamError 400, 404."""
    model = request.model or connections.settings.model
    connections.upstream.route(model)
    past = [orjson.loads(item) for item in await _read_history(connections, tenant, request)]
    items, _ = await resolve_references(connections, tenant, past, request.new_items())
    return await connections.upstream.count(make_ask(request, model, items))


async def compact_history(
    connections: Connections, caller: Caller, request: CompactHistory
) -> tuple[list[Json], Usage]:
    """The history as what was said to the assistant and a summary, and what that cost.

    Raises ApiError 404, 429, 503, UpstreamError.
    """
    model = request.model or connections.settings.model
    connections.upstream.route(model)
    inputs = new_items(request.input)
    past = [orjson.loads(item) for item in await _read_history(connections, caller.tenant, request)]
    items, _ = await resolve_references(connections, caller.tenant, past, inputs)
    taken = await _take(connections, caller, request, inputs)
    summary, usage = await summarize(connections.upstream, model, context_of(items), request.instructions)
    count_tokens(label_of(connections, model), usage)
    await _settle(connections, caller, usage.input_tokens + usage.output_tokens - taken)
    asked = [item for item in items if item["type"] == "message" and item["role"] in ASKING]
    return [*asked, compaction_item(summary, 0)], usage


async def _read_history(connections: Connections, tenant: str, request: CreateResponse | CompactHistory) -> list[bytes]:
    if isinstance(request, CreateResponse) and request.conversation_id:
        check_conversation(request.conversation_id)
        hot = await _hot(connections, tenant, request.conversation_id, "conversation")
        return [item for _, item in hot.items]
    previous = request.previous_response_id
    if not previous:
        return []
    thread, end = await _end(connections, tenant, previous)
    hot = await _hot(connections, tenant, thread, "previous_response_id")
    return [item for position, item in hot.items if position <= end]


async def _end(connections: Connections, tenant: str, previous: str) -> tuple[str, int]:
    """Thread and last position of the response that is continued."""
    hot = await hot_response(connections, tenant, previous)
    if hot == "gone":
        raise errors.not_found("response", previous, "previous_response_id")
    if isinstance(hot, HotResponse):
        if hot.body is None:
            raise errors.previous_response_running(previous)
        if hot.end is None:
            raise errors.previous_response_empty(previous)
        return hot.thread, hot.end
    span = await stored(store.response_span(connections.store, tenant, previous))
    if span is None:
        raise missing(hot, "response", previous, "previous_response_id")
    if span.end is None:
        raise errors.previous_response_empty(previous)
    return span.conversation, span.end


async def _hot(connections: Connections, tenant: str, thread: str, param: str) -> HotConversation:
    while True:
        hot = await changes.read(connections.redis, tenant, thread, items=True)
        if hot == "gone":
            raise errors.not_found("conversation", thread, param)
        if isinstance(hot, HotConversation):
            return hot
        await rebuild(connections, tenant, thread, param)
