"""OpenTelemetry's SDK as core/tracing.py uses it: spans, and a thread that sends them to a collector over OTLP.

Imported only where there is a collector.
"""

import logging
import threading
from collections.abc import Sequence
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.re import parse_env_headers
from opentelemetry.util.types import Attributes as OtelAttributes

from core.places import Place
from core.settings import TraceSettings
from core.tracing import Attributes, Kind
from core.version import VERSION

log = logging.getLogger(__name__)

# What is left at the end is sent within this or never: a collector that hangs must not keep a process.
STOP_SECONDS = 3.0
NOWHERE = Context()
KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
# They write a line for each batch that can't be sent, and for each span that finds no room; Telling does it once.
# The last one would write a header that it can't read, which is a secret.
CHATTY = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.util.re")


class Telling(SpanExporter):
    """Says once that traces can't be sent, and once that they can again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("the collector does not take traces: they are dropped until it does")
        elif self._failing and not failed:
            log.info("the collector takes traces again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class Decided(RandomIdGenerator):
    """Gives the next trace the id by which it was decided that it is sampled."""

    trace_id = 0

    def generate_trace_id(self) -> int:
        decided, self.trace_id = self.trace_id, 0
        return decided or super().generate_trace_id()


class Collector:
    """Begins spans and sends those that are sampled. The SDK reads OTEL_BSP_*, time-outs and certificates by itself."""

    def __init__(self, settings: TraceSettings, service: str) -> None:
        for logger in CHATTY:
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        pairs = (pair.partition("=") for pair in settings.resource.split(",") if "=" in pair)
        told = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
        name = settings.service or told.get(SERVICE_NAME) or service
        resource = Resource.create({SERVICE_VERSION: VERSION, **told, SERVICE_NAME: name})
        self._ids = Decided()
        self._root, sampler = _samplers(settings)
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False, id_generator=self._ids)
        exporter = OTLPSpanExporter(settings.endpoint, headers=parse_env_headers(settings.headers, liberal=True))
        self._provider.add_span_processor(BatchSpanProcessor(Telling(exporter)))
        self._tracer = self._provider.get_tracer("chatbot")

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: Span | None,
        attributes: Attributes | None,
        *,
        links: Sequence[Place] = (),
        start_ns: int | None = None,
    ) -> Span:
        if parent is None and not links:
            trace_id = self._ids.generate_trace_id()
            if self._root.should_sample(NOWHERE, trace_id, name).decision is Decision.DROP:
                # What most requests are where few are sampled; the SDK takes five times as long to say so.
                return NonRecordingSpan(SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False))
            self._ids.trace_id = trace_id
        context = NOWHERE if parent is None else set_span_in_context(parent, NOWHERE)
        linked = [Link(_context(place)) for place in links]
        return self._tracer.start_span(name, context, KINDS[kind], attributes, linked, start_ns)

    def remote(self, place: Place) -> Span:
        return NonRecordingSpan(_context(place))

    def fail(self, span: Span, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR)

    def stop(self) -> None:
        """The SDK itself would wait for half a minute."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(STOP_SECONDS)
        if sending.is_alive():
            log.warning("the last traces were not sent: the collector does not answer")


def _context(place: Place) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT)
    return SpanContext(place.trace_id, place.span_id, is_remote=True, trace_flags=flags)


class LinkedToo(ParentBased):
    """What is linked to something sampled is sampled like a part of it: a batch with a sampled turn in it."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: OtelAttributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if any(link.context.trace_flags.sampled for link in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return super().should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)


def _samplers(settings: TraceSettings) -> tuple[Sampler, Sampler]:
    """Who decides on what nobody else has decided on, and on everything."""
    kind = settings.sampler.removeprefix("parentbased_")
    ratio = TraceIdRatioBased(settings.ratio)
    root = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF, "traceidratio": ratio}[kind]
    return root, root if kind == settings.sampler else LinkedToo(root)
