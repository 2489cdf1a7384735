"""Tasks that last as long as their process, and how they are ended."""

import asyncio
from collections.abc import Iterable

CANCEL_AGAIN_SECONDS = 0.5


async def end(keepers: "Iterable[asyncio.Task[None]]") -> None:
    """Cancel until they end: before Python 3.12 `wait_for`, in which redis-py writes, may swallow a cancellation."""
    pending = set(keepers)
    while pending:
        for keeper in pending:
            keeper.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
