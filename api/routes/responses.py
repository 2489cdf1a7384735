"""/v1/responses: create, read, delete, input items."""

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api import deleting, reading
from api.connections import Connections
from api.routes.edge import TENANT, check_ids, connections_of, json_response, read_body
from api.routes.stream import EventStream
from api.schemas.edge import parse, parse_list_query
from api.schemas.responses import CreateResponse
from api.turn.follow import follow
from api.turn.run import start_turn, wait_for_body
from api.turn.unstored import start_unstored

router = APIRouter(prefix="/v1/responses", dependencies=[Depends(check_ids)])


async def create(connections: Connections, request: Request) -> Response:
    """POST /v1/responses; called by the edge, not by the router."""
    raw = await read_body(request, connections.settings.body_limit_bytes)
    body = parse(CreateResponse, raw)
    if not body.store:
        turn = await start_unstored(connections, TENANT, body)
        on_leave = turn.leave
    else:
        turn = await start_turn(connections, TENANT, body, raw, request.headers.get("idempotency-key", ""))
        on_leave = None
    if body.stream:
        return EventStream(follow(connections, turn), on_leave)
    return json_response(await wait_for_body(turn))


@router.get("/{response_id}")
async def read(request: Request, response_id: str) -> Response:
    return json_response(await reading.response(connections_of(request), TENANT, response_id))


@router.delete("/{response_id}")
async def delete(request: Request, response_id: str) -> Response:
    await deleting.delete_response(connections_of(request), TENANT, response_id)
    return json_response(orjson.dumps({"id": response_id, "object": "response", "deleted": True}))


@router.get("/{response_id}/input_items")
async def input_items(request: Request, response_id: str) -> Response:
    query = parse_list_query(request.query_params)
    items = await reading.response_inputs(connections_of(request), TENANT, response_id)
    return json_response(orjson.dumps(reading.page(items, query.after, query.limit, query.order)))
