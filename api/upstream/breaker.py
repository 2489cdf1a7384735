"""A circuit breaker: a provider that keeps failing is left alone for a while, so that nobody waits for it in vain."""

import logging
import time
from collections import deque

from api import metrics
from api.upstream.failures import ProviderError
from api.upstream.settings import BreakerSettings

log = logging.getLogger(__name__)
CLOSED, HALF_OPEN, OPEN = 0, 1, 2


class Breaker:
    """Closed, until calls fail in a row; then open for a time; then half-open: one call is let through to try, and
    what becomes of it decides. Should nobody learn that (its client left), the next one is let through after the same
    time. It belongs to this process alone."""

    def __init__(self, upstream: str, settings: BreakerSettings) -> None:
        self._upstream = upstream
        self._settings = settings
        self._failed_at: deque[float] = deque(maxlen=settings.failures)
        self._next_trial: float | None = None
        """When the next call is let through; None: all are, for the breaker is closed."""
        self._tried = False
        # Asked by whoever reads the metrics: an open breaker becomes half-open by time alone.
        metrics.UPSTREAM_BREAKER.labels(upstream).set_function(self._state)

    @property
    def closed(self) -> bool:
        return self._next_trial is None

    def _state(self) -> int:
        if self._next_trial is None:
            return CLOSED
        return HALF_OPEN if self._tried or time.monotonic() >= self._next_trial else OPEN

    def check(self) -> None:
        """Raises ProviderError when no call may go."""
        if self._next_trial is None:
            return
        seconds = self._next_trial - time.monotonic()
        if seconds > 0:
            message = "the model provider failed too often, so it is left alone for a moment"
            raise ProviderError(503, "upstream_unavailable", message, retry_after_seconds=seconds)

    def admit(self) -> bool:
        """Whether this call is the one that tries an open breaker. Raises ProviderError like `check`."""
        self.check()
        if self._next_trial is None:
            return False
        self._next_trial = time.monotonic() + self._settings.open_seconds
        self._tried = True
        return True

    def succeeded(self, *, trial: bool) -> None:
        self._failed_at.clear()
        if trial and not self.closed:
            self._next_trial = None
            log.info("upstream answers again", extra={"upstream": self._upstream})

    def failed(self, *, trial: bool) -> None:
        """Calls that began while it was closed may fail long after; an open breaker learns nothing from them."""
        now = time.monotonic()
        if self.closed:
            self._failed_at.append(now)
            if len(self._failed_at) < self._settings.failures or not self._settings.failures:
                return
            if now - self._failed_at[0] > self._settings.window_seconds:
                return
            log.warning("upstream is left alone", extra={"upstream": self._upstream})
        elif not trial:
            return
        self._failed_at.clear()
        self._next_trial = now + self._settings.open_seconds
        self._tried = False
