"""An OpenTelemetry collector on a real socket: it takes OTLP over HTTP and keeps the spans for the tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from local.children import HOST
from tests.waiting import wait_until

Value = str | int | float | bool | list[Any]


@dataclass(frozen=True, slots=True)
class Received:
    """A span as the collector got it; ids in hexadecimal digits, times in nanoseconds."""

    name: str
    kind: str
    service: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Value]
    links: list[tuple[str, str]]
    failed: bool
    message: str
    """Of the status."""


@dataclass
class Collector:
    """`hangs`: it takes requests and never answers. `status`: what it answers else."""

    port: int
    hangs: bool = False
    status: int = 200
    asked: int = 0
    refused: int = 0
    spans: list[Received] = field(default_factory=list)
    resources: dict[str, dict[str, Value]] = field(default_factory=dict)
    """The attributes of each service."""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def of(self, trace: str) -> list[Received]:
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

    def named(self, name: str, trace: str) -> list[Received]:
        return [span for span in self.of(trace) if span.name == name]

    async def one(self, name: str, trace: str) -> Received:
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
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {pair.key: _value(pair.value) for pair in group.resource.attributes}
            service = str(resource["service.name"])
            self.resources[service] = resource
            self.spans += [_received(span, service) for scope in group.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


def _received(span: Span, service: str) -> Received:
    return Received(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        service=service,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
    )


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    told: Value = getattr(value, str(kind))
    return told


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
