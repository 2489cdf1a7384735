"""What a turn that ended tells the operators: its metrics and its one line in the log. No content."""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Counter

from api import metrics
from api.connections import Connections
from api.upstream.exchange import Usage
from core import tracing

OTHER = "other"
Fields = dict[str, str | int | float | bool]


@dataclass(slots=True)
class Course:
    """What happened to a turn, and when by the monotonic clock; 0: it did not."""

    model: str = ""
    """As the client calls it."""
    asked_at: float = field(default_factory=time.monotonic)
    begun_at: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    upstream: str = ""
    usage: Usage | None = None

    def answered(self, upstream: str) -> None:
        self.upstream = upstream

    def piece(self) -> None:
        """The answer has come as far as this."""
        self.last_at = time.monotonic()
        if not self.first_at:
            self.first_at = self.last_at


def label_of(connections: Connections, model: str) -> str:
    """What metrics call a model: there are few names, whatever clients ask for."""
    return model if model == connections.settings.model or connections.upstream.names(model) else OTHER


@functools.cache
def _kinds(model: str) -> dict[str, Counter]:
    kinds = ("input", "input_cached", "input_cache_written", "output", "output_reasoning")
    return {kind: metrics.TOKENS.labels(model, kind) for kind in kinds}


first_token_of = functools.cache(metrics.FIRST_TOKEN_SECONDS.labels)
token_of = functools.cache(metrics.TOKEN_SECONDS.labels)


def count_tokens(model: str, usage: Usage) -> None:
    """`model`: one that is configured, or `other`. What a provider tells of a part is within what it tells of all."""
    counts = _kinds(model)
    for kind, tokens in _disjoint(usage):
        if tokens > 0:
            counts[kind].inc(tokens)


def _disjoint(usage: Usage) -> Iterator[tuple[str, int]]:
    yield "input", usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    yield "input_cached", usage.cached_tokens
    yield "input_cache_written", usage.cache_write_tokens
    yield "output", usage.output_tokens - usage.reasoning_tokens
    yield "output_reasoning", usage.reasoning_tokens


def measure(course: Course, status: str, model: str) -> None:
    """`model` as metrics call it."""
    exemplar, usage = tracing.exemplar(), course.usage
    metrics.turns_of(status).inc()
    metrics.TURN_SECONDS.observe(time.monotonic() - course.begun_at, exemplar)
    if course.first_at:
        first_token_of(model).observe(course.first_at - course.asked_at, exemplar)
        if usage is not None and usage.output_tokens > 1:
            token_of(model).observe((course.last_at - course.first_at) / (usage.output_tokens - 1), exemplar)
    if usage is not None:
        count_tokens(model, usage)


def line(course: Course) -> Fields:
    """What the log says of it beside its names and its status."""
    ended_at, usage = time.monotonic(), course.usage
    told: Fields = {
        "model": course.model,
        "upstream": course.upstream,
        "begin_seconds": round(course.begun_at - course.asked_at, 4),
        "seconds": round(ended_at - course.begun_at, 4),
    }
    if course.first_at:
        told["first_token_seconds"] = round(course.first_at - course.asked_at, 4)
    if usage is not None:
        told |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        if usage.cached_tokens:
            told["cached_tokens"] = usage.cached_tokens
    return told
