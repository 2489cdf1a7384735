"""A span for each request to /v1, in the trace that the client's `traceparent` names if it sent one."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.routes.edge import HOT_PATH
from api.tenants import Caller
from core import tracing
from core.places import Place, read_traceparent

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

            async def send_noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= SERVER_ERROR:
                        tracing.fail(span, str(status))
                    given = (value for name, value in message["headers"] if name == b"x-request-id")
                    span.set_attribute("chatbot.request.id", next(given, b"").decode())
                await send(message)

            try:
                await self._app(scope, receive, send_noting)
            finally:
                route = HOT_PATH if scope["path"] == HOT_PATH else getattr(scope.get("route"), "path", "")
                span.set_attribute("http.request.method", scope["method"] if method != "HTTP" else "_OTHER")
                if route:
                    span.update_name(f"{method} {route}")
                    span.set_attributes({"http.route": route, "url.path": scope["path"]})
                caller: Caller | None = scope.get("caller")
                if caller is not None:
                    span.set_attribute("chatbot.tenant", caller.tenant)


def _sender(scope: Scope) -> Place | None:
    """Two headers are as bad as a wrong one."""
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    return read_traceparent(found[0].decode("latin-1")) if len(found) == 1 else None
