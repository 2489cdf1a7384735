"""An OpenTelemetry collector on a real socket: it takes OTLP over HTTP and keeps the spans for the tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from local.children import HOST
from local.traces import Resource, Span, read
from tests.waiting import wait_until


@dataclass
class Collector:
    """`hangs`: it takes requests and never answers. `status`: what it answers else."""

    port: int
    hangs: bool = False
    status: int = 200
    asked: int = 0
    refused: int = 0
    spans: list[Span] = field(default_factory=list)
    resources: dict[str, Resource] = field(default_factory=dict)
    """The attributes of each service."""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def of(self, trace: str) -> list[Span]:
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

    def named(self, name: str, trace: str) -> list[Span]:
        return [span for span in self.of(trace) if span.name == name]

    async def one(self, name: str, trace: str) -> Span:
        """The first span of this name in a trace, once it is there."""
        await wait_until(lambda: bool(self.named(name, trace)), f"a span {name!r}, not only {self.names(trace)}")
        return self.named(name, trace)[0]

    def names(self, trace: str) -> list[str]:
        return [span.name for span in self.of(trace)]

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.status != 200:
            self.refused += 1
            return web.Response(status=self.status)
        self.headers.append(dict(request.headers))
        self.bodies.append(body)
        for resource, spans in read(body):
            self.resources[str(resource["service.name"])] = resource
            self.spans += spans
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def collecting(port: int) -> AsyncIterator[Collector]:
    collector = Collector(port)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    yield collector
    await runner.cleanup()
