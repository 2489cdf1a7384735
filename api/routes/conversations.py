"""/v1/conversations: the eight endpoints of OpenAI's Conversations API, and the list and export of them."""

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api import changing, deleting, reading
from api.listing.conversations import conversations
from api.listing.export import export
from api.routes.edge import check_ids, connections_of, idempotency_of, json_response, read_body, tenant_of
from api.routes.stream import JsonLines, begun
from api.schemas.conversations import CreateConversation, CreateItems, UpdateConversation
from api.schemas.edge import parse, parse_list_query
from api.schemas.listing import parse_conversation_query

router = APIRouter(prefix="/v1/conversations", dependencies=[Depends(check_ids)])


@router.post("")
async def create(request: Request) -> Response:
    connections = connections_of(request)
    raw = await read_body(request, connections.settings.body_limit_bytes)
    body, once = parse(CreateConversation, raw or b"{}"), idempotency_of(connections, request, raw)
    made = await changing.create_conversation(connections, tenant_of(request), body, once)
    return json_response(orjson.dumps(made))


@router.get("")
async def listed(request: Request) -> Response:
    query = parse_conversation_query(request.query_params)
    return json_response(orjson.dumps(await conversations(connections_of(request), tenant_of(request), query)))


@router.get("/{conversation_id}")
async def read(request: Request, conversation_id: str) -> Response:
    return json_response(
        orjson.dumps(await reading.conversation(connections_of(request), tenant_of(request), conversation_id))
    )


@router.post("/{conversation_id}")
async def update(request: Request, conversation_id: str) -> Response:
    connections = connections_of(request)
    raw = await read_body(request, connections.settings.body_limit_bytes)
    body, once = parse(UpdateConversation, raw), idempotency_of(connections, request, raw)
    updated = await changing.update_conversation(connections, tenant_of(request), conversation_id, body, once)
    return json_response(orjson.dumps(updated))


@router.delete("/{conversation_id}")
async def delete(request: Request, conversation_id: str) -> Response:
    await deleting.delete_conversation(connections_of(request), tenant_of(request), conversation_id)
    return json_response(orjson.dumps({"id": conversation_id, "object": "conversation.deleted", "deleted": True}))


@router.get("/{conversation_id}/export")
async def exported(request: Request, conversation_id: str) -> Response:
    lines = await begun(export(connections_of(request), tenant_of(request), conversation_id))
    return JsonLines(lines, f"{conversation_id}.jsonl")


@router.post("/{conversation_id}/items")
async def create_items(request: Request, conversation_id: str) -> Response:
    connections = connections_of(request)
    raw = await read_body(request, connections.settings.body_limit_bytes)
    body, once = parse(CreateItems, raw), idempotency_of(connections, request, raw)
    made = await changing.create_items(connections, tenant_of(request), conversation_id, body, once)
    return json_response(orjson.dumps(made))


@router.get("/{conversation_id}/items")
async def items(request: Request, conversation_id: str) -> Response:
    query = parse_list_query(request.query_params)
    listed = await reading.conversation_items(
        connections_of(request), tenant_of(request), conversation_id, query.after, query.limit, query.order
    )
    return json_response(orjson.dumps(listed))


@router.get("/{conversation_id}/items/{item_id}")
async def item(request: Request, conversation_id: str, item_id: str) -> Response:
    return json_response(
        await reading.conversation_item(connections_of(request), tenant_of(request), conversation_id, item_id)
    )


@router.delete("/{conversation_id}/items/{item_id}")
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    connections = connections_of(request)
    await deleting.delete_item(connections, tenant_of(request), conversation_id, item_id)
    return json_response(orjson.dumps(await reading.conversation(connections, tenant_of(request), conversation_id)))
