"""/livez touches no store; /readyz fails only before the start is done and while the process drains."""

import asyncio

import orjson
from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from starlette.responses import Response

from api import store
from api.connections import Connections
from api.routes.edge import connections_of, json_response
from core import queue
from core.store import UNREACHABLE
from core.troubles import postgres_trouble, redis_trouble

router = APIRouter()

# Kubernetes takes a probe that is not answered within a second, its default, for one that failed.
LOOK_SECONDS = 0.5


@router.get("/livez")
async def livez() -> Response:
    return json_response(b'{"status":"ok"}')


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Missing stores are named, but do not fail: every pod would leave the Service at once, and hot chats with them."""
    connections = connections_of(request)
    looks = await asyncio.gather(_look_at_redis(connections), _look_at_postgres(connections))
    draining = request.app.state.draining
    body = {"status": "draining" if draining else "ok", "missing": [look for look in looks if look]}
    return json_response(orjson.dumps(body), 503 if draining else 200)


async def _look_at_redis(connections: Connections) -> str | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await queue.depth(connections.redis)
    except (RedisError, OSError) as error:
        return redis_trouble(error, "new stored turns are answered with 503")
    return None


async def _look_at_postgres(connections: Connections) -> str | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await store.ping(connections.store)
    except UNREACHABLE as error:
        return postgres_trouble(error, "hot conversations go on, cold ones are answered with 503")
    return None
