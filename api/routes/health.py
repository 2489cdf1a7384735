"""/livez touches no store; /readyz fails only before the start is done and while the process drains."""

import orjson
from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from starlette.responses import Response

from api import store
from api.routes.edge import connections_of, json_response
from core import queue
from core.store import UNREACHABLE
from core.tls import refusal

router = APIRouter()


@router.get("/livez")
async def livez() -> Response:
    return json_response(b'{"status":"ok"}')


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Missing stores are named, but do not fail: every pod would leave the Service at once, and hot chats with them."""
    connections = connections_of(request)
    missing = []
    try:
        await queue.depth(connections.redis)
    except RedisError as error:
        missing.append(f"redis can't be reached{_why(error)}: new stored turns are answered with 503")
    try:
        await store.ping(connections.store)
    except UNREACHABLE as error:
        missing.append(
            f"postgresql can't be reached{_why(error)}: hot conversations go on, cold ones are answered with 503"
        )
    draining = request.app.state.draining
    body = {"status": "draining" if draining else "ok", "missing": missing}
    return json_response(orjson.dumps(body), 503 if draining else 200)


def _why(error: Exception) -> str:
    """What an operator has to mend; whatever passes by itself needs no words."""
    told = refusal(error)
    return f" ({told})" if told else ""
