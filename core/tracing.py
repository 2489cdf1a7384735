"""Traces: what happens to a request from the client's `traceparent` to the COPY into PostgreSQL.

Without a collector nothing of OpenTelemetry is imported, no span is ever current, and `span` is one look at a context
variable. No content of messages goes into a span, nor an exception's text: it is told by its code or its class.
docs/observability.md tells which spans there are.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from core.places import Place
from core.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from core.otlp import Collector

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, str | bool | int | float | Sequence[str]]


class _At:
    """Where what runs now is: `recorded` is the span if it is sampled, which many ask for many times."""

    __slots__ = ("recorded", "span")

    def __init__(self, span: "Span") -> None:
        self.span = span
        self.recorded = span if span.get_span_context().trace_flags.sampled else None


_current: ContextVar[_At | None] = ContextVar("span", default=None)


class _Process:
    collector: "Collector | None" = None
    content = False


def start(settings: TraceSettings, service: str) -> None:
    """Trace from now on, if there is a collector to send to; `service` is the name where the settings have none."""
    if settings.endpoint:
        from core.otlp import Collector  # noqa: PLC0415 - some 20 MB and 0.2 s that only those pay who trace

        _Process.collector, _Process.content = Collector(settings, service), settings.content


def stop() -> None:
    """Send what is left, within seconds. The last thing that a process does."""
    if _Process.collector is not None:
        _Process.collector.stop()


def on() -> bool:
    return _Process.collector is not None


def content() -> bool:
    """Whether the operator wants what was said in spans."""
    return _Process.content


def trace_id() -> str:
    """The trace of what runs now, as logs name it; empty while there is none."""
    at = _current.get()
    return "" if at is None else f"{at.span.get_span_context().trace_id:032x}"


def exemplar() -> dict[str, str] | None:
    """What a metric tells beside its value: a trace that the collector has, if there is one."""
    span = recorded()
    return None if span is None else {"trace_id": f"{span.get_span_context().trace_id:032x}"}


def here() -> Place | None:
    """The current span, if it is one that the collector gets."""
    span = recorded()
    if span is None:
        return None
    context = span.get_span_context()
    return Place(context.trace_id, context.span_id, sampled=True)


def carried() -> str:
    """The current span for who goes on with it later (`places.read_carried`); empty unless the collector gets it."""
    place = here()
    return "" if place is None else place.carried()


def traceparent() -> str:
    """What a server that is asked now goes on from; empty while there is no trace."""
    at = _current.get()
    if at is None:
        return ""
    context = at.span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{'00' if at.recorded is None else '01'}"


def recorded() -> "Span | None":
    """The current span, if it is one that the collector gets. It may have ended, and is a parent all the same."""
    at = _current.get()
    return None if at is None else at.recorded


class Block:
    """A span that is current while a block runs; a block that raises fails it."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: "Span") -> None:
        self._span = span
        self._token: Token[_At | None] | None = None

    def __enter__(self) -> "Span | None":
        """The span, where it is worth telling it anything."""
        at = _At(self._span)
        self._token = _current.set(at)
        return at.recorded

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._token is not None:
            _current.reset(self._token)
        end(self._span, error)


class Nothing:
    """Stands for the span of what is not traced."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        return None


NOTHING = Nothing()


def span(name: str, kind: Kind = "internal", attributes: Attributes | None = None) -> Block | Nothing:
    """A part of what is traced now."""
    opened = begin(name, kind, attributes)
    return NOTHING if opened is None else Block(opened)


def entrance(
    name: str,
    kind: Kind = "server",
    attributes: Attributes | None = None,
    *,
    links: Sequence[Place] = (),
    start_ns: int | None = None,
) -> Block | Nothing:
    """Where work comes in: the sampler decides, with who sent it (`under`) and what is in it (`links`)."""
    if _Process.collector is None:
        return NOTHING
    at = _current.get()
    parent = None if at is None else at.span
    return Block(_Process.collector.begin(name, kind, parent, attributes, links=links, start_ns=start_ns))


def begin(name: str, kind: Kind = "internal", attributes: Attributes | None = None) -> "Span | None":
    """A part that the caller ends (`end`), for what is no block; None while nothing is traced."""
    parent = recorded()
    if parent is None or _Process.collector is None:
        return None
    return _Process.collector.begin(name, kind, parent, attributes)


def end(span: "Span", error: BaseException | None = None, end_ns: int | None = None) -> None:
    """`error`: why it failed, if it did. Who was cancelled has not failed."""
    if error is not None and not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        fail(span, error_type(error))
    span.end(end_ns)


def fail(span: "Span", kind: str) -> None:
    if _Process.collector is not None:
        _Process.collector.fail(span, kind)


def error_type(error: BaseException) -> str:
    """Few and without content: the code of our own errors, PostgreSQL's SQLSTATE, else the class."""
    code = getattr(error, "code", None) or getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else type(error).__qualname__


def record(
    name: str,
    kind: Kind,
    attributes: Attributes,
    *,
    start_ns: int,
    end_ns: int | None = None,
    error: BaseException | None = None,
    links: Sequence[Place] = (),
) -> None:
    """A part of what is traced now that is over; times are Unix time in nanoseconds, by default until now."""
    parent = recorded()
    if parent is not None and _Process.collector is not None:
        opened = _Process.collector.begin(name, kind, parent, attributes, links=links, start_ns=start_ns)
        end(opened, error, end_ns)


def note(attributes: Attributes) -> None:
    """Tell it of the current span."""
    span = recorded()
    if span is not None and span.is_recording():
        span.set_attributes(attributes)


def failed(error: BaseException) -> None:
    """The current span's work has failed, although nothing is raised through its block."""
    span = recorded()
    if span is not None and span.is_recording():
        fail(span, error_type(error))


class Under:
    """What `under` gives."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: "Span") -> None:
        self._span = span
        self._token: Token[_At | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(_At(self._span))

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._token is not None:
            _current.reset(self._token)


def under(parent: "Place | Span | None") -> Under | Nothing:
    """What runs in the block is part of a span that it does not end, of this process or of another one."""
    if parent is None or _Process.collector is None:
        return NOTHING
    return Under(_Process.collector.remote(parent) if isinstance(parent, Place) else parent)
