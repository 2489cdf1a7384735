"""How a process ends what it keeps running."""

import asyncio
import contextlib

import pytest

from core.keepers import end

pytestmark = pytest.mark.anyio


async def test_who_swallows_a_cancellation_is_cancelled_again() -> None:
    """As redis-py does on Python 3.11, when it is cancelled just as it has written; the process would never end."""

    async def keep() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    keeper = asyncio.create_task(keep())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end([keeper])
    assert keeper.cancelled()
