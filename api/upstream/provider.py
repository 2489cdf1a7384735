"""One configured provider: its upstream, and how often a call is tried again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.upstream.chat_completions import ChatCompletions
from api.upstream.echo import Echo
from api.upstream.exchange import Ask, Count, Delta, Stream, Upstream
from api.upstream.failures import PassingError
from api.upstream.settings import ProviderSettings

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.25
# All tries of one call begin within this: a client waits for them.
RETRY_SECONDS = 10.0


class Provider:
    """Retries, with jitter, happen before the first token only: what a client has seen can't be taken back."""

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        self.name = name
        self.longest_seconds = RETRY_SECONDS + settings.timeouts.whole
        self._retries = settings.retries
        self._upstream = _upstream(settings)

    async def begin(self, ask: Ask) -> Stream:
        return await self._tried(lambda: self._upstream.begin(ask))

    async def complete(self, ask: Ask) -> list[Delta]:
        return await self._tried(lambda: self._upstream.complete(ask))

    async def count(self, ask: Ask) -> Count:
        return await self._upstream.count(ask)

    async def models(self) -> list[str]:
        return await self._tried(self._upstream.models)

    async def close(self) -> None:
        await self._upstream.close()

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
                if failed > self._retries or time.monotonic() + pause > end:
                    raise
            await asyncio.sleep(pause)


def _upstream(settings: ProviderSettings) -> Upstream:
    match settings.kind:
        case "echo":
            return Echo()
        case "chat_completions":
            return ChatCompletions(settings.base_url, settings.key, settings.timeouts)
