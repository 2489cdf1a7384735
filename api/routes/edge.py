"""What every request passes: a request id, the API key, the size of its body; and how errors leave."""

import hmac
import logging
from typing import cast

from fastapi import FastAPI, Request
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.connections import Connections
from api.errors import ApiError
from api.ids import new_id
from api.upstream.exchange import UpstreamError

log = logging.getLogger(__name__)

# Version 1 has one tenant; every key and row carries it all the same.
TENANT = "default"


class Edge:
    """Gives every answer its `x-request-id` and lets only those with the key into /v1."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode() if api_key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req_")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        if self._expected and scope["path"].startswith("/v1"):
            shown = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(shown, self._expected):
                await error_response(errors.invalid_api_key())(scope, receive, send_with_id)
                return
        await self._app(scope, receive, send_with_id)


def connections_of(request: Request) -> Connections:
    return cast("Connections", request.app.state.connections)


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises ApiError 413 as soon as it is known to be too long."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise errors.body_too_large(limit_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise errors.body_too_large(limit_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def error_response(error: ApiError) -> Response:
    return Response(error.body(), error.status, headers=error.headers, media_type="application/json")


def upstream_error(error: UpstreamError) -> ApiError:
    headers = (
        {} if error.retry_after_seconds is None else {"retry-after": str(max(1, round(error.retry_after_seconds)))}
    )
    return errors.from_upstream(error.status, error.code, error.message, error.param, headers)


def add_error_answers(app: FastAPI) -> None:
    """Everything that goes wrong leaves in OpenAI's shape."""

    async def on_api_error(_: Request, error: Exception) -> Response:
        return error_response(cast("ApiError", error))

    async def on_upstream_error(_: Request, error: Exception) -> Response:
        return error_response(upstream_error(cast("UpstreamError", error)))

    async def on_redis_error(_: Request, error: Exception) -> Response:
        log.warning("redis failed", extra={"error": type(error).__name__})
        if isinstance(error, OutOfMemoryError):
            return error_response(errors.queue_full())
        return error_response(errors.store_unavailable("Redis can't be reached"))

    async def on_http_error(request: Request, error: Exception) -> Response:
        status = cast("HTTPException", error).status_code
        if status == 405:
            return error_response(errors.method_not_allowed(request.method, request.url.path))
        return error_response(errors.unknown_url(request.method, request.url.path))

    async def on_any_error(_: Request, error: Exception) -> Response:
        log.error("request failed", exc_info=error)
        return error_response(errors.server_error())

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(UpstreamError, on_upstream_error)
    app.add_exception_handler(RedisError, on_redis_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_any_error)
