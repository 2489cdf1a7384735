"""WebSocket /v1/responses: turns one after the other, each event of them one text frame."""

import asyncio
from collections.abc import Callable

import orjson
from starlette.types import Message, Receive, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from api import errors, metrics
from api.chains import Chain
from api.connections import Connections
from api.errors import ApiError
from api.idempotency import NOT_IDEMPOTENT
from api.ids import new_id
from api.routes.edge import HOT_PATH, told
from api.routes.traced import SERVER_ERROR
from api.schemas.client_events import ResponseCreateEvent
from api.schemas.edge import parse
from api.tenants import Caller
from api.turn.events import KEEPALIVE, text_of
from api.turn.follow import CutError, DeletedError, follow
from api.turn.running import Turn
from api.turn.stored import start_turn
from api.turn.unstored import prepare, start_unstored
from core import tracing

NORMAL, RESTARTING = 1000, 1012
WEBSOCKET = {"http.route": HOT_PATH, "network.protocol.name": "websocket"}


class WebSocket(WebSocketsSansIOProtocol):
    """uvicorn ends every connection as soon as the process is told to stop; ours end behind the turn they carry."""

    def shutdown(self) -> None:
        if not self.handshake_complete or self.close_sent:
            super().shutdown()

    async def send(self, message: ASGISendEvent) -> None:
        """A refusal ends the handshake too: without that the library logs each as an error of ours."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    def handle_connect(self, event: Request) -> None:
        """Bytes beyond ASCII where the handshake has its own words: the library's refusal of them fails itself."""
        wrong = next((name for name, value in event.headers.raw_items() if not _fits(name, value)), "")
        if not wrong and event.path.isascii():
            super().handle_connect(event)
            return
        error = errors.invalid("invalid_value", "Send a WebSocket's path and handshake in ASCII.", wrong or None)
        refusal = self.conn.reject(error.status, error.body().decode())
        del refusal.headers["content-type"]
        refusal.headers.update({"content-type": "application/json", "x-request-id": new_id("req_")})
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self.conn.send_response(refusal)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()


def _fits(header: str, value: str) -> bool:
    name = header.lower()
    return value.isascii() or not (name in ("connection", "upgrade") or name.startswith("sec-websocket-"))


class GoneError(Exception):
    """The client has left."""


async def serve(connections: Connections, admit: Callable[[], Caller], receive: Receive, send: Send) -> None:
    """Called by the edge, for a client that may come in; `admit` tells who it is, or raises ApiError, for each turn."""
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-request-id", new_id("req_").encode())]})
    with metrics.WEBSOCKETS.track_inprogress():
        await Socket(connections, admit, receive, send).run()


class Socket:
    """One open connection."""

    def __init__(self, connections: Connections, admit: Callable[[], Caller], receive: Receive, send: Send) -> None:
        self._connections = connections
        self._admit = admit
        self._receive = receive
        self._asgi_send = send
        self._chain = Chain()
        self._turn: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the client leaves, the process stops or the connection's time is over; a running turn ends before."""
        seconds = self._connections.settings.websocket_seconds
        reading = asyncio.create_task(self._read())
        draining = asyncio.create_task(self._connections.draining.wait())
        try:
            await asyncio.wait((reading, draining), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            while self._turn is not None and not self._turn.done() and not reading.done():
                await asyncio.wait((reading, self._turn), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await self._close(None if draining.done() else errors.connection_limit(seconds / 60))
        finally:
            await self._end(reading, draining, self._turn)
            self._connections.chains.end(self._chain)

    @staticmethod
    async def _end(*tasks: "asyncio.Task[None] | asyncio.Task[bool] | None") -> None:
        mine = [task for task in tasks if task is not None]
        for task in mine:
            task.cancel()
        for outcome in await asyncio.gather(*mine, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, GoneError):
                raise outcome

    async def _close(self, why: ApiError | None) -> None:
        if why is not None:
            await self._send_error(why)
        await self._send({"type": "websocket.close", "code": RESTARTING if why is None else NORMAL})

    async def _read(self) -> None:
        """Always reading, so that pongs are heard while a turn runs."""
        while (message := await self._receive())["type"] == "websocket.receive":
            try:
                self._take(message)
            except ApiError as error:
                await self._send_error(error)

    def _take(self, message: Message) -> None:
        text = message.get("text")
        if text is None:
            raise errors.binary_frame()
        if self._turn is not None and not self._turn.done():
            raise errors.turn_running()
        request = parse(ResponseCreateEvent, text.encode())
        self._turn = asyncio.create_task(self._answer(request))

    async def _answer(self, request: ResponseCreateEvent) -> None:
        with tracing.entrance("response.create", attributes=WEBSOCKET):
            await self._answer_traced(request)

    async def _answer_traced(self, request: ResponseCreateEvent) -> None:
        """One turn; whatever goes wrong with it is told, and the connection stays."""
        previous = request.previous_response_id or ""
        try:
            turn = await self._start(request, previous)
            await self._relay(turn)
        except GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - as for every endpoint: told() logs what nobody expected
            self._connections.chains.forget(self._chain, previous)
            answer = told(error)
            if answer.status >= SERVER_ERROR:
                tracing.failed(answer)
            await self._send_error(answer)
            return
        if turn.status == "failed":
            self._connections.chains.forget(self._chain, previous)
        elif not turn.stored:
            self._connections.chains.keep(self._chain, turn.response, turn.items)

    async def _start(self, request: ResponseCreateEvent, previous: str) -> Turn:
        connections, caller = self._connections, self._admit()
        tracing.note({"chatbot.tenant": caller.tenant})
        past = connections.chains.find(self._chain, previous)
        try:
            if request.generate is False:
                return await prepare(connections, caller, request, past)
            if not request.store:
                return await start_unstored(connections, caller, request, past)
            return await start_turn(connections, caller, request, NOT_IDEMPOTENT, past)
        except ApiError as error:
            if (error.code, error.param) == ("response_not_found", "previous_response_id"):
                raise errors.previous_response_not_found(previous) from None
            raise

    async def _relay(self, turn: Turn) -> None:
        try:
            async for frames in follow(self._connections, turn):
                for frame in frames:
                    if frame is not KEEPALIVE:  # the protocol has pings of its own
                        await self._send({"type": "websocket.send", "text": text_of(frame)})
        except DeletedError as deleted:
            raise deleted.error from None
        except CutError:
            raise turn.failure or errors.outcome_unknown(turn.response) from None
        finally:
            if not turn.stored:
                turn.leave()

    async def _send_error(self, error: ApiError) -> None:
        body = {"type": "error", "status": error.status, **orjson.loads(error.body())}
        if error.headers:
            body["error"]["headers"] = error.headers
        await self._send({"type": "websocket.send", "text": orjson.dumps(body).decode()})

    async def _send(self, message: Message) -> None:
        """Raises GoneError. Waits while the client does not read; the server ends that (api/__main__.py)."""
        try:
            await self._asgi_send(message)
        except (OSError, RuntimeError) as error:
            # uvicorn's words for a client that has left, and for a connection that uvicorn itself has closed.
            raise GoneError from error
