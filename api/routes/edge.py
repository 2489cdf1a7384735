"""What every request passes: a request id, the API key, the size of its body; and how errors leave."""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import cast

from fastapi import FastAPI, Request
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api import errors, metrics
from api.connections import Connections
from api.errors import ApiError
from api.idempotency import NOT_IDEMPOTENT, Idempotency
from api.ids import CONVERSATION, is_id, new_id
from api.routes.counting import count_request, route_of
from api.tenants import Caller, Keyring
from api.tenants import Scope as Right
from api.upstream.exchange import UpstreamError
from core.telemetry import REQUEST_ID

log = logging.getLogger(__name__)

HOT_PATH = "/v1/responses"
# The one POST that changes nothing.
COUNTING_PATH = "/v1/responses/input_tokens"
READING = ("GET", "HEAD")
METHODS = ("GET", "POST", "DELETE")
LONGEST_IDEMPOTENCY_KEY = 255
# For a provider that does not say when to come back: most count by the minute.
RATE_LIMIT_RETRY_SECONDS = 10.0


class Edge:
    """The outermost application: gives every answer its `x-request-id` and lets only those with a key into /v1.

    POST /v1/responses is answered here, in front of FastAPI (docs/adr/0005-hot-endpoint-before-fastapi.md), and so are
    WebSockets, which have that path only.
    """

    def __init__(
        self,
        app: FastAPI,
        keyring: Keyring,
        create: Callable[[Connections, Request], Awaitable[Response]],
        serve: Callable[[Connections, Callable[[], Caller], Receive, Send], Awaitable[None]],
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._create = create
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await (self._open if scope["type"] == "websocket" else self._app)(scope, receive, send)
            return
        began, request_id = time.perf_counter(), new_id("req_")
        REQUEST_ID.set(request_id)
        try:
            await self._serve_http(scope, receive, send, request_id.encode())
        finally:
            count_request(scope, HOT_PATH if scope["path"] == HOT_PATH else route_of(scope), began)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send, request_id: bytes) -> None:
        needed: Right = "read" if scope["method"] in READING or scope["path"] == COUNTING_PATH else "write"
        refused = self._admit(scope, needed) if scope["path"].startswith("/v1") else None
        if refused is not None:
            response = error_response(refused)
        elif scope["path"] == HOT_PATH:
            response = await self._answer(Request(scope, receive))
        else:
            await self._app(scope, receive, _with_headers(send, scope, request_id))
            return
        response.raw_headers += _every_answers_headers(scope, request_id)
        scope["answered"] = response.status_code
        await response(scope, receive, send)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The server logs the path with its query, which may hold what nobody should read.
        scope["query_string"] = b""
        refused = errors.unknown_url("GET", scope["path"]) if scope["path"] != HOT_PATH else self._admit(scope, "write")
        if refused is None and self._keyring.callers is None and not _from_here(Headers(scope=scope)):
            refused = errors.foreign_origin()
        if refused is None:
            await self._serve(self._app.state.connections, lambda: self._admit_again(scope), receive, send)
            return
        await receive()
        told_with = {"content-type": "application/json", "x-request-id": new_id("req_"), **refused.headers}
        headers = [(name.encode(), value.encode()) for name, value in told_with.items()]
        await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": refused.body()})

    def _admit_again(self, scope: Scope) -> Caller:
        """For each turn: keys and limits may have changed since the connection was opened. Raises ApiError 401, 403."""
        refused = self._admit(scope, "write")
        if refused is not None:
            raise refused
        return cast("Caller", scope["caller"])

    def _admit(self, scope: Scope, needed: Right) -> ApiError | None:
        """Put the caller into the scope, where `caller_of` finds it; or why it may not come in."""
        caller = self._keyring.find(next((value for name, value in scope["headers"] if name == b"authorization"), b""))
        if caller is None:
            return errors.invalid_api_key()
        metrics.tenant_requests_of(caller.tenant, caller.key).inc()
        if needed not in caller.scopes:
            return errors.insufficient_scope(needed)
        scope["caller"] = caller.asking()
        return None

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return error_response(errors.method_not_allowed(request.method, HOT_PATH, ["POST"]))
        try:
            return await self._create(self._app.state.connections, request)
        except Exception as error:  # noqa: BLE001 - what FastAPI does for every other endpoint
            return error_response(told(error))


def _from_here(headers: Headers) -> bool:
    """Whether a page of ours opens the connection, or no page at all: browsers let every site open one anywhere."""
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _with_headers(send: Send, scope: Scope, request_id: bytes) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            scope["answered"] = message["status"]
            message["headers"] = [*message["headers"], *_every_answers_headers(scope, request_id)]
        await send(message)

    return send_with_headers


def _every_answers_headers(scope: Scope, request_id: bytes) -> list[tuple[bytes, bytes]]:
    caller: Caller | None = scope.get("caller")
    return [(b"x-request-id", request_id), *(caller.allowance.headers() if caller else ())]


def connections_of(request: Request) -> Connections:
    return cast("Connections", request.app.state.connections)


def caller_of(request: Request) -> Caller:
    return cast("Caller", request.scope["caller"])


def tenant_of(request: Request) -> str:
    return caller_of(request).tenant


def idempotency_of(connections: Connections, request: Request, raw: bytes) -> Idempotency:
    """The client's Idempotency-Key, if any, and what a repetition must have in common with this request.

    Raises ApiError 400 for a key that can't be kept.
    """
    key = request.headers.get("idempotency-key", "")
    if not key:
        return NOT_IDEMPOTENT
    if len(key) > LONGEST_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        message = f"The Idempotency-Key must be at most {LONGEST_IDEMPOTENCY_KEY} printable ASCII characters."
        raise errors.invalid("invalid_value", message, "Idempotency-Key")
    request_hash = hashlib.sha256(request.scope["path"].encode() + b"\n" + raw).hexdigest()
    return Idempotency(key, request_hash, connections.settings.idempotency_seconds)


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


async def check_ids(request: Request) -> None:
    """For every path with ids: what can't be an id names nothing. Raises ApiError 404."""
    for name, value in request.path_params.items():
        if not is_id(value) or (name == "conversation_id" and not value.startswith(CONVERSATION)):
            raise errors.not_found(name.removesuffix("_id"), value, name)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises ApiError 413 as soon as it is known to be too long, 400 when it is not said to be JSON.

    A page of any web site can have a browser send other types here without asking; where no key is needed
    (`AUTH=none`), nothing else would stop it.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise errors.body_too_large(limit_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise errors.body_too_large(limit_bytes)
        chunks.append(chunk)
    if size and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise errors.unsupported_content_type()
    return b"".join(chunks)


def error_response(error: ApiError) -> Response:
    metrics.errors_of(error.code).inc()
    return Response(error.body(), error.status, headers=error.headers, media_type="application/json")


def told(error: Exception) -> ApiError:
    """What a client learns of an error; what nobody expected is logged and told as our own."""
    match error:
        case ApiError():
            return error
        case UpstreamError():
            return _upstream_error(error)
        case ClientDisconnect():
            return errors.client_left()
        case OutOfMemoryError():
            return errors.queue_full()
        case RedisError():
            log.warning("redis failed", extra={"error": type(error).__name__})
            return errors.store_unavailable("Redis can't be reached")
    log.error("request failed", exc_info=error)
    return errors.server_error()


def _upstream_error(error: UpstreamError) -> ApiError:
    seconds = error.retry_after_seconds
    if seconds is None and error.status == 429:
        seconds = RATE_LIMIT_RETRY_SECONDS
    headers = {} if seconds is None else {"retry-after": str(max(1, round(seconds)))}
    return errors.from_upstream(error.status, error.code, error.message, error.param, headers)
