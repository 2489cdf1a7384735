"""Counts each request when its answer has left."""

import functools
import time

from prometheus_client import Counter, Histogram
from starlette.types import Scope

from api import metrics
from core import tracing

# Of names there must be few; whatever else a client sends is its own invention.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SERVER_ERROR = 500


@functools.cache
def _children(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Looking labels up costs several times as much as counting."""
    return (
        metrics.REQUESTS.labels(route, method, status),
        metrics.REQUEST_SECONDS.labels(route, method, f"{status // 100}xx"),
    )


def count_request(scope: Scope, route: str, began: float) -> None:
    """`began` by `time.perf_counter`. An answer that never began is an error of ours."""
    method = scope["method"] if scope["method"] in METHODS else OTHER
    requests, seconds = _children(route, method, scope.get("answered", SERVER_ERROR))
    requests.inc()
    seconds.observe(time.perf_counter() - began, tracing.exemplar())


def route_of(scope: Scope) -> str:
    """The pattern that FastAPI found for the path."""
    return getattr(scope.get("route"), "path", OTHER)
