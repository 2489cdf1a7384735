"""Turns that are kept: begun in Redis, run in a task of their own, written at their end."""

import time
from typing import Any

import orjson

from api import metrics
from api.connections import Connections
from api.history.steps import Opening
from api.idempotency import Idempotency
from api.ids import THREAD, new_id
from api.schemas.responses import CreateResponse
from api.tenants import Caller
from api.turn.asking import Question, expected_tokens
from api.turn.body import skeleton
from api.turn.opening import new_token, open_turn
from api.turn.run import run_stored
from api.turn.running import Turn
from api.turn.takeup import body_to_repeat
from core import tracing

Json = dict[str, Any]


async def start_turn(
    connections: Connections,
    caller: Caller,
    request: CreateResponse,
    idempotency: Idempotency,
    before: list[Json] | None = None,
) -> Turn:
    """Begin a stored turn and let it run in a task of its own; the client may leave.

    `before` is what an unstored response that it continues had read and said; it is stored along.
    """
    asked_at = time.monotonic()
    tenant, response, token = caller.tenant, new_id("resp_"), new_token()
    model = request.model or connections.settings.model
    connections.upstream.route(model)  # nothing is begun for a model that nobody answers for
    start = skeleton(request, response, model, request.conversation_id)
    # Two turns may continue the same response: what is stored of it gets new ids each time.
    inputs = [{**item, "id": new_id(item["id"].partition("_")[0] + "_")} for item in before or ()] + request.new_items()
    streamed = request.stream or request.background
    kept: Json = {"response": start, "input": inputs, "stream": streamed}
    if request.background:
        kept["again"] = orjson.Fragment(body_to_repeat(request))
    if trace := tracing.carried():
        kept["trace"] = trace
    previous = request.previous_response_id or "" if before is None else ""
    known = connections.recent.find(tenant, request.conversation_id, previous)
    opening = Opening(
        tenant=tenant,
        response=response,
        token=token,
        new_thread=new_id(THREAD),
        request=orjson.dumps(kept),
        conversation=request.conversation_id,
        previous_response=previous,
        idempotency=idempotency,
        known_generation=known.generation,
        known_count=len(known.items),
        allowance=caller.allowance,
        tokens=expected_tokens(caller.allowance, request, inputs),
    )
    begun = await open_turn(connections, opening)
    metrics.BEGIN_SECONDS.observe(time.monotonic() - asked_at, tracing.exemplar())
    past = known.items[: begun.left_out] + [orjson.loads(item) for item in begun.items]
    turn = Turn(tenant, response, begun.thread, token, streamed=streamed)
    turn.course.asked_at = asked_at
    turn.start, turn.repeatable = start, request.background
    question = Question(request, start, past, inputs)
    turn.task = connections.tasks.create_task(run_stored(connections, turn, question, begun.generation))
    return turn
