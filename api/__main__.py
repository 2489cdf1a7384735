"""`python -m api`: serve until SIGTERM, then drain."""

import socket
import sys

import prometheus_client
import uvicorn
from fastapi import FastAPI

from api.main import create_app
from api.settings import read_settings
from core.settings import Environment, SettingsError, report
from core.telemetry import configure_logging


class Server(uvicorn.Server):
    """Tells /readyz that the process drains, as soon as it does."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.draining = True
        await super().shutdown(sockets)


def main() -> int:
    try:
        settings = read_settings(Environment())
    except SettingsError as error:
        sys.stderr.write(report(error))
        return 2
    configure_logging(settings.log_level)
    prometheus_client.start_http_server(settings.metrics_port, addr=settings.host)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )
    Server(app, config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
