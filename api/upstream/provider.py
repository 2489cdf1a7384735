"""One configured provider: how often a call is tried again, how many run at once, and whether any may go."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from api import metrics
from api.upstream.breaker import Breaker
from api.upstream.dialects import CHAT_COMPLETIONS, RESPONSES
from api.upstream.echo import Echo
from api.upstream.estimate import estimated_input_tokens
from api.upstream.exchange import Ask, Count, Delta, Stream, Upstream, UpstreamError
from api.upstream.failures import PassingError, ProviderError
from api.upstream.http import OPENAI_HOST, HttpUpstream
from api.upstream.settings import ProviderSettings
from core import tracing

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.25
# All tries of one call begin within this: a client waits for them.
RETRY_SECONDS = 10.0
# For who found every place taken; answers end all the time.
BUSY_RETRY_SECONDS = 1.0
# These tell that the provider is ill. A rate limit, a refused key or a missing model tell that it answers.
ILL = frozenset({"upstream_error", "upstream_timeout", "upstream_cut"})


class Provider:
    """Retries, with jitter, happen before the first token only: what a client has seen can't be taken back."""

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        self.name = name
        self.settings = settings
        self.longest_seconds = RETRY_SECONDS + settings.timeouts.whole + settings.wait_seconds
        self._retries = settings.retries
        self._wait_seconds = settings.wait_seconds
        most = settings.concurrent_requests
        self._places = None if most is None else asyncio.Semaphore(most)
        self._breaker = Breaker(name, settings.breaker)
        self._upstream = _upstream(settings)
        self._seconds = metrics.UPSTREAM_SECONDS.labels(name)
        # The conventions have names for providers; those that only speak OpenAI's language have the operator's.
        self._told = "openai" if urlsplit(settings.base_url).hostname == OPENAI_HOST else name
        self._attempts = metrics.UPSTREAM_ATTEMPTS.labels(name)
        self._retried = metrics.UPSTREAM_RETRIES.labels(name)
        # A series that begins with the first failure shows Prometheus no increase of it: it must be seen at 0 before.
        metrics.UPSTREAM_FALLBACKS.labels(name)
        for code in ILL:
            metrics.UPSTREAM_ERRORS.labels(name, code)

    async def begin(self, ask: Ask) -> Stream:
        """Who has the stream calls `end` after it."""
        await self._take_place()
        try:
            return await self._tried(lambda: self._watched(self._upstream.begin, ask))
        except BaseException:
            self._leave()
            raise

    def end(self, failure: UpstreamError | None, *, whole: bool) -> None:
        """The stream is over; neither `whole` nor with a failure: its reader left."""
        self._leave()
        if failure is not None:
            self._count(failure, trial=False)
        elif whole:
            self._breaker.succeeded(trial=False)

    async def complete(self, ask: Ask) -> list[Delta]:
        await self._take_place()
        try:
            deltas = await self._tried(lambda: self._watched(self._upstream.complete, ask))
        finally:
            self._leave()
        self._breaker.succeeded(trial=False)
        return deltas

    async def count(self, ask: Ask) -> Count:
        if not self._breaker.closed:
            return Count(estimated_input_tokens(ask), estimated=True)
        return await self._upstream.count(ask)

    async def models(self) -> list[str]:
        """That it can list its models does not tell that it answers, so the breaker learns nothing from this."""
        return await self._tried(self._upstream.models)

    async def close(self) -> None:
        await self._upstream.close()

    async def _watched(self, call: Callable[[Ask], Awaitable[T]], ask: Ask) -> T:
        """One try."""
        trial = self._breaker.admit()
        self._attempts.inc()
        began = time.monotonic()
        if tracing.recorded() is not None:
            tracing.note({"gen_ai.provider.name": self._told, "gen_ai.request.model": ask.model})
        try:
            answer = await call(ask)
        except UpstreamError as error:
            self._count(error, trial=trial)
            raise
        self._seconds.observe(time.monotonic() - began, tracing.exemplar())
        if trial:
            self._breaker.succeeded(trial=True)
        return answer

    def _count(self, error: UpstreamError, *, trial: bool) -> None:
        metrics.UPSTREAM_ERRORS.labels(self.name, error.code).inc()
        if isinstance(error, ProviderError) and error.code in ILL:
            self._breaker.failed(trial=trial)
        else:
            self._breaker.succeeded(trial=trial)

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        end = time.monotonic() + RETRY_SECONDS
        failed = 0
        while True:
            try:
                return await call()
            except PassingError as error:
                failed += 1
                pause = error.retry_after_seconds
                if pause is None:
                    pause = random.uniform(0, FIRST_PAUSE_SECONDS * 2 ** (failed - 1))  # noqa: S311 - jitter is no secret
                if failed > self._retries or time.monotonic() + pause > end or not self._breaker.closed:
                    raise
            self._retried.inc()
            await asyncio.sleep(pause)

    async def _take_place(self) -> None:
        self._breaker.check()
        places = self._places
        if places is None:
            return
        if not places.locked():
            await places.acquire()  # at once: a time-out would cost more than all else here
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                await places.acquire()
        except TimeoutError:
            message = "as many requests as the model provider may have are running"
            error = ProviderError(503, "upstream_busy", message, retry_after_seconds=BUSY_RETRY_SECONDS)
            metrics.UPSTREAM_ERRORS.labels(self.name, error.code).inc()
            raise error from None

    def _leave(self) -> None:
        if self._places is not None:
            self._places.release()


def _upstream(settings: ProviderSettings) -> Upstream:
    match settings.kind:
        case "echo":
            return Echo()
        case "chat_completions":
            return HttpUpstream(CHAT_COMPLETIONS, settings.base_url, settings.key, settings.timeouts)
        case "responses":
            return HttpUpstream(RESPONSES, settings.base_url, settings.key, settings.timeouts)
