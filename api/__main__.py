"""`python -m api`: serve until SIGTERM, then drain; `--help` tells the other commands."""

import asyncio
import signal
import socket
import sys
from asyncio.trsock import TransportSocket

import prometheus_client
import uvicorn
from fastapi import FastAPI

from api import keys
from api.main import create_app, hand_over_turns, interrupt_turns
from api.routes import responses, websocket
from api.routes.edge import Edge
from api.routes.traced import Traced
from api.routes.websocket import WebSocket
from api.settings import read_settings
from api.tenants import Keyring
from core import tracing
from core.metrics import tell_build
from core.settings import Environment, SettingsError, report
from core.telemetry import configure_logging

# Clients of turns that were cut off at the end of the drain still get their terminal event.
LAST_WORDS_SECONDS = 5
# Until what was accepted just before is a connection.
ACCEPTED_SECONDS = 0.05


class Server(uvicorn.Server):
    """On SIGTERM: /readyz fails, running turns go on for a while, then they are closed as incomplete."""

    def __init__(self, app: FastAPI, config: uvicorn.Config, drain_seconds: float, slow_client_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._slow_client_seconds = slow_client_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                cut_off_slow_clients(listening, self._slow_client_seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.draining = True
        connections = self._app.state.connections
        hand_over_turns(connections)
        timer = asyncio.get_running_loop().call_later(self._drain_seconds, interrupt_turns, connections)
        for server in self.servers:
            server.close()
        # uvicorn tells each connection that it knows by now; one of a moment later would be served for ever.
        await asyncio.sleep(ACCEPTED_SECONDS)
        await super().shutdown(sockets)
        timer.cancel()


def cut_off_slow_clients(listening: TransportSocket | socket.socket, seconds: float) -> None:
    """Have the kernel end connections whose client does not read, at no cost per event; each inherits it from here."""
    if sys.platform == "linux":
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def main() -> int:
    arguments = keys.parser().parse_args()
    if arguments.command is not None:
        return keys.carry_out(arguments)
    try:
        settings = read_settings(Environment())
    except SettingsError as error:
        sys.stderr.write(report(error))
        return 2
    configure_logging(settings.log_level)
    tell_build("api")
    prometheus_client.start_http_server(settings.metrics_port, addr=settings.host)
    keyring = Keyring(settings.callers, settings.keys_file)
    app = create_app(settings, keyring)
    tracing.start(settings.traces, "chatbot-api")
    edge = Edge(app, keyring, responses.create, websocket.serve)
    config = uvicorn.Config(
        Traced(edge) if tracing.on() else edge,
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws=WebSocket,
        ws_max_size=settings.body_limit_bytes,
        ws_per_message_deflate=False,  # it costs a window of memory per connection, and time per event
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_seconds) + LAST_WORDS_SECONDS,
    )
    # uvicorn raises the signal again once it has stopped; a process that ended as it was asked to has not failed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(app.state.exit_status))
    try:
        Server(app, config, settings.drain_seconds, settings.slow_client_seconds).run()
    finally:
        tracing.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
