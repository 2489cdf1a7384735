"""`python -m local.traces`: a collector of OpenTelemetry's that prints the traces it gets, for a look at one turn.

    .venv/bin/python -m local.traces
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 make run     # in another terminal

Each trace is printed with those that it leads to, once nothing has come for a while, and what is left at Ctrl-C.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from local.children import HOST

PORT = 4318
# Processes send every 5 s.
QUIET_SECONDS = 6.0
LARGEST_BYTES = 64 * 1024 * 1024

Value = str | int | float | bool | list[Any]
Resource = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came; ids in hexadecimal digits, times in nanoseconds, links as (trace, span)."""

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


def read(body: bytes) -> Iterator[tuple[Resource, list[Span]]]:
    """What a process sent: what it tells of itself, and its spans."""
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {pair.key: _value(pair.value) for pair in group.resource.attributes}
        service = str(resource["service.name"])
        yield resource, [_span(span, service) for scope in group.scope_spans for span in scope.spans]


def _span(span: trace_pb2.Span, service: str) -> Span:
    return Span(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        service=service,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        message=span.status.message,
    )


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    told: Value = getattr(value, str(kind))
    return told


def shown(spans: list[Span]) -> str:
    """All traces as trees: first those to which no other one leads, each with those behind it."""
    led_to = {trace for span in spans if span.parent for trace, _ in span.links}
    lines: list[str] = []
    told: set[str] = set()
    for trace in sorted({span.trace for span in spans}, key=lambda trace: (trace in led_to, _start(spans, trace))):
        _show(spans, trace, told, lines)
    return "\n".join(lines)


def _show(spans: list[Span], trace: str, told: set[str], lines: list[str]) -> None:
    own = [span for span in spans if span.trace == trace]
    if trace in told or not own:
        return
    told.add(trace)
    start, ids = _start(spans, trace), {span.id for span in own}
    lines += ["", f"trace {trace}"]
    for span in sorted(own, key=lambda span: span.start):
        if span.parent not in ids:
            _show_under(own, span, start, 0, lines)
    for span in own:
        for linked, _ in span.links if span.parent else ():
            _show(spans, linked, told, lines)


def _show_under(own: list[Span], span: Span, start: int, depth: int, lines: list[str]) -> None:
    name = "  " * depth + span.name + (f"  ERROR {span.attributes.get('error.type', '')}" if span.failed else "")
    begun, lasted = (span.start - start) / 1e6, (span.end - span.start) / 1e6
    links = "".join(f"  → {trace[:8]}…" for trace, _ in span.links)
    lines.append(f"{begun:8.1f} {lasted:8.1f} ms  {name:<40} {span.service}{links}")
    for child in sorted((one for one in own if one.parent == span.id), key=lambda one: one.start):
        _show_under(own, child, start, depth + 1, lines)


def _start(spans: list[Span], trace: str) -> int:
    return min(span.start for span in spans if span.trace == trace)


async def _print_quiet(spans: list[Span], came: asyncio.Event) -> None:
    while True:
        await came.wait()
        came.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(came.wait(), QUIET_SECONDS)
            continue
        print(shown(spans), flush=True)
        spans.clear()


async def main(port: int) -> None:
    spans: list[Span] = []
    came, stop = asyncio.Event(), asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        spans.extend(span for _, sent in read(await request.read()) for span in sent)
        came.set()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=LARGEST_BYTES)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sys.stderr.write(f"traces that are sent to http://{HOST}:{port} are printed here\n")
    printing = asyncio.create_task(_print_quiet(spans, came))
    await stop.wait()
    printing.cancel()
    await runner.cleanup()
    if spans:
        print(shown(spans))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=PORT)
    asyncio.run(main(parser.parse_args().port))
