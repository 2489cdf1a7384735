"""/v1/responses: create, read, delete, input items."""

import contextlib
import time

import orjson
from fastapi import APIRouter, Depends, Request
from redis.exceptions import OutOfMemoryError
from starlette.responses import Response

from api import deleting, reading
from api.connections import Connections
from api.history import orphans
from api.ids import new_id
from api.routes.edge import caller_of, check_ids, connections_of, idempotency_of, json_response, read_body, tenant_of
from api.routes.stream import EventStream, leaving
from api.schemas.edge import parse, parse_list_query, parse_resume_query
from api.schemas.responses import CompactHistory, CreateResponse
from api.tenants import Caller
from api.turn.body import usage_body
from api.turn.follow import ended_body, follow, follow_log
from api.turn.opening import Replay
from api.turn.orphans import cancel_response
from api.turn.run import wait_for_body
from api.turn.stored import start_turn
from api.turn.takeup import body_to_repeat
from api.turn.unstored import compact_history, count_input, start_unstored

router = APIRouter(prefix="/v1/responses", dependencies=[Depends(check_ids)])


async def create(connections: Connections, request: Request) -> Response:
    """POST /v1/responses; called by the edge, not by the router."""
    raw = await read_body(request, connections.settings.body_limit_bytes)
    body, once = parse(CreateResponse, raw), idempotency_of(connections, request, raw)
    if not body.store:
        return await _unstored(connections, request, body)
    caller = caller_of(request)
    try:
        turn = await start_turn(connections, caller, body, once)
    except Replay as earlier:
        return await _replay(connections, caller, body, earlier.response)
    if body.stream:
        return EventStream(follow(connections, turn))
    return json_response(orjson.dumps(turn.start) if body.background else await wait_for_body(turn))


async def _replay(connections: Connections, caller: Caller, body: CreateResponse, response: str) -> Response:
    """The response that this Idempotency-Key has already, run again should its process be dead."""
    if response not in connections.running:
        # Without memory for it, it is attached to all the same.
        with contextlib.suppress(OutOfMemoryError):
            await orphans.ask_again(connections.redis, caller.tenant, response, body_to_repeat(body))
    if body.stream:
        return EventStream(follow_log(connections, caller.tenant, response, 0))
    tell = reading.response if body.background else ended_body
    return json_response(await tell(connections, caller.tenant, response))


async def _unstored(connections: Connections, request: Request, body: CreateResponse) -> Response:
    """Nothing of it remains, so it stops when its client leaves."""
    turn = await start_unstored(connections, caller_of(request), body)
    if body.stream:
        return EventStream(follow(connections, turn), turn.leave)
    async with leaving(request.receive, turn.leave):
        return json_response(await wait_for_body(turn))


@router.post("/input_tokens")
async def input_tokens(request: Request) -> Response:
    """Takes the body of a create, as it is."""
    connections = connections_of(request)
    body = parse(CreateResponse, await read_body(request, connections.settings.body_limit_bytes))
    count = await count_input(connections, tenant_of(request), body)
    told = {"object": "response.input_tokens", "input_tokens": count.input_tokens}
    return json_response(orjson.dumps({**told, "estimated": True} if count.estimated else told))


@router.post("/compact")
async def compact(request: Request) -> Response:
    connections = connections_of(request)
    body = parse(CompactHistory, await read_body(request, connections.settings.body_limit_bytes))
    output, usage = await compact_history(connections, caller_of(request), body)
    head = {"id": new_id("resp_"), "object": "response.compaction", "created_at": int(time.time())}
    return json_response(orjson.dumps({**head, "output": output, "usage": usage_body(usage)}))


@router.get("/{response_id}")
async def read(request: Request, response_id: str) -> Response:
    connections, first = connections_of(request), parse_resume_query(request.query_params)
    # Also before a stream, for what is unknown is told by HTTP's status.
    body = await reading.response(connections, tenant_of(request), response_id)
    if first is None:
        return json_response(body)
    return EventStream(follow_log(connections, tenant_of(request), response_id, first))


@router.delete("/{response_id}")
async def delete(request: Request, response_id: str) -> Response:
    await deleting.delete_response(connections_of(request), tenant_of(request), response_id)
    return json_response(orjson.dumps({"id": response_id, "object": "response", "deleted": True}))


@router.post("/{response_id}/cancel")
async def cancel(request: Request, response_id: str) -> Response:
    """Answers with the ended response; one that had ended before is left as it is."""
    return json_response(await cancel_response(connections_of(request), tenant_of(request), response_id))


@router.get("/{response_id}/input_items")
async def input_items(request: Request, response_id: str) -> Response:
    query = parse_list_query(request.query_params)
    items = await reading.response_inputs(connections_of(request), tenant_of(request), response_id)
    return json_response(orjson.dumps(reading.page(items, query.after, query.limit, query.order)))
