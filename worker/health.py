"""/livez, /readyz and /metrics on a port of their own: three answers do not need a web framework."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from worker.outage import Outage

REQUEST_TIMEOUT_SECONDS = 5.0
PLAIN = "text/plain; charset=utf-8"


@asynccontextmanager
async def serving(host: str, port: int, outages: list[Outage]) -> AsyncIterator[None]:
    """Answer at this address for as long as the context lasts."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = _answer(request.split(b" ", 2)[1], _accepted(request), outages)
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (OSError, TimeoutError, LookupError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who does not speak HTTP gets no answer
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port)
    async with server:
        yield


def _accepted(request: bytes) -> str:
    """Prometheus asks for OpenMetrics, the only form with exemplars."""
    names = (line.partition(b":") for line in request.split(b"\r\n")[1:])
    return next((value.strip().decode("latin-1") for name, _, value in names if name.lower() == b"accept"), "")


def _answer(path: bytes, accepted: str, outages: list[Outage]) -> tuple[str, str, bytes]:
    match path:
        case b"/livez":
            # Touches no store: a restart does not bring one back.
            return "200 OK", PLAIN, b"alive\n"
        case b"/readyz":
            troubles = [outage.trouble for outage in outages if outage.trouble is not None]
            if troubles:
                return "503 Service Unavailable", PLAIN, "".join(f"{trouble}\n" for trouble in troubles).encode()
            return "200 OK", PLAIN, b"ready\n"
        case b"/metrics":
            # Asks nobody, so it never waits (core/sampling.py).
            encode, kind = choose_encoder(accepted)
            return "200 OK", kind, encode(REGISTRY)
        case _:
            return "404 Not Found", PLAIN, b"there is /livez, /readyz and /metrics\n"
