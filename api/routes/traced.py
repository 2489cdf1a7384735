"""A span for each request to /v1, in the trace that the client's `traceparent` names if it sent one."""

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.routes.edge import HOT_PATH
from api.tenants import Caller
from core import tracing
from core.places import Place, read_traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# Of names there must be few; whatever else a client sends is its own invention.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SERVER_ERROR = 500


class Traced:
    """Put around the edge where traces are sent somewhere. On a WebSocket each turn is a span (websocket.py)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        with tracing.under(_sender(scope)):
            if scope["type"] == "http":
                await self._answer(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in METHODS else "HTTP"
        with tracing.entrance(f"{method} {HOT_PATH}" if scope["path"] == HOT_PATH else method) as span:
            if span is None:
                await self._app(scope, receive, send)
                return

            told: dict[str, str | int] = {"http.request.method": scope["method"] if method != "HTTP" else "_OTHER"}

            async def send_noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    given = (value for name, value in message["headers"] if name == b"x-request-id")
                    told["chatbot.request.id"] = next(given, b"").decode()
                    told["http.response.status_code"] = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, send_noting)
            finally:
                _tell(span, scope, method, told)


def _tell(span: "Span", scope: Scope, method: str, told: dict[str, str | int]) -> None:
    if route := HOT_PATH if scope["path"] == HOT_PATH else getattr(scope.get("route"), "path", ""):
        span.update_name(f"{method} {route}")
        told |= {"http.route": route, "url.path": scope["path"]}
    caller: Caller | None = scope.get("caller")
    if caller is not None:
        told["chatbot.tenant"] = caller.tenant
    span.set_attributes(told)
    status = int(told.get("http.response.status_code", 0))
    if status >= SERVER_ERROR:
        tracing.fail(span, str(status))


def _sender(scope: Scope) -> Place | None:
    """Two headers are as bad as a wrong one."""
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    return read_traceparent(found[0].decode("latin-1")) if len(found) == 1 else None
