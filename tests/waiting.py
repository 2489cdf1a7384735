"""The one place where tests wait: for something that can be seen, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")
POLL_SECONDS = 0.01


@overload
async def wait_until(predicate: Callable[[], Awaitable[T]], description: str, timeout_seconds: float = ...) -> T: ...
@overload
async def wait_until(predicate: Callable[[], T], description: str, timeout_seconds: float = ...) -> T: ...
async def wait_until(predicate: Callable[[], object], description: str, timeout_seconds: float = 10.0) -> object:
    """Return the predicate's first true value; fail with what was waited for and what was seen last."""
    end = time.monotonic() + timeout_seconds
    while True:
        result = predicate()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_seconds} s for {description}; last seen: {value!r}")
        await asyncio.sleep(POLL_SECONDS)


def wait_until_now(predicate: Callable[[], T], description: str, timeout_seconds: float = 10.0) -> T:
    """`wait_until` for tests that use the synchronous SDK."""
    end = time.monotonic() + timeout_seconds
    while not (value := predicate()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_seconds} s for {description}; last seen: {value!r}")
        # Between two looks: a synchronous test has no event loop that could do something else meanwhile.
        time.sleep(POLL_SECONDS)
    return value
