"""Counts each request when its answer has left."""

import functools
import logging
import time

from prometheus_client import Counter, Histogram
from starlette.types import Scope

from api import metrics
from api.tenants import Caller
from core import tracing

log = logging.getLogger(__name__)

# Of names there must be few; whatever else a client sends is its own invention.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SERVER_ERROR = 500
UNAVAILABLE = 503


@functools.cache
def _begin_errors(route: str, method: str) -> None:
    """A series that begins with the first failure shows Prometheus no increase of it: it must be seen at 0 before."""
    for status in (SERVER_ERROR, UNAVAILABLE):
        metrics.REQUESTS.labels(route, method, status)


@functools.cache
def _children(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Looking labels up costs several times as much as counting."""
    _begin_errors(route, method)
    return (
        metrics.REQUESTS.labels(route, method, status),
        metrics.REQUEST_SECONDS.labels(route, method, f"{status // 100}xx"),
    )


def count_request(scope: Scope, route: str, began: float) -> None:
    """`began` by `time.perf_counter`. An answer that never began is an error of ours."""
    method = scope["method"] if scope["method"] in METHODS else OTHER
    requests, seconds = _children(route, method, scope.get("answered", SERVER_ERROR))
    requests.inc()
    took_seconds = time.perf_counter() - began
    seconds.observe(took_seconds, tracing.exemplar())
    if log.isEnabledFor(logging.DEBUG):
        caller: Caller | None = scope.get("caller")
        whose = {} if caller is None else {"tenant": caller.tenant, "key": caller.key}
        what = {"method": method, "route": route, "status": scope.get("answered", SERVER_ERROR)}
        log.debug("request", extra={**whose, **what, "seconds": round(took_seconds, 4)})


def route_of(scope: Scope) -> str:
    """The pattern that FastAPI found for the path."""
    return getattr(scope.get("route"), "path", OTHER)
