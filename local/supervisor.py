"""Keeps the parts running, and stops them in the order in which nothing gets lost or waits in vain."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from local.children import Child, StartError

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 30.0
# What has run this long did not die of its start: the next delay is the first one again.
SETTLED_SECONDS = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Part:
    """Something that must run; `stop_seconds` is how long it may take to stop in order."""

    name: str
    start_child: Callable[[], Awaitable[Child]]
    stop_seconds: float
    child: Child | None = None

    async def start(self) -> None:
        self.child = await self.start_child()


def say(text: str = "") -> None:
    """Tell the person at the terminal, if it is still there."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


async def supervise(start: Callable[[], Awaitable[None]], parts: Sequence[Part]) -> int:
    """Run `start`, then keep `parts` running until a signal comes; stop them in their order. Returns the exit status.

    A second signal kills whatever is left.
    """
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    asked = asyncio.create_task(signals.get())
    serving = asyncio.create_task(_serve(start, parts))
    await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    [outcome] = await asyncio.gather(serving, return_exceptions=True)
    if isinstance(outcome, StartError):
        say(f"can't start: {outcome}")
    else:
        say(f"\nstopping {', '.join(part.name for part in parts)} (Ctrl-C again kills them)")
    asked.cancel()
    again = asyncio.create_task(signals.get())
    stopping = asyncio.create_task(_stop(parts))
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not stopping.done():
        stopping.cancel()
        await asyncio.gather(*(part.child.kill() for part in parts if part.child))
        say("killed; what was acknowledged is on disk, the next start continues from there")
        return 130
    stopping.result()
    say("stopped")
    if isinstance(outcome, Exception) and not isinstance(outcome, StartError):
        raise outcome
    return 1 if isinstance(outcome, StartError) else 0


async def _serve(start: Callable[[], Awaitable[None]], parts: Sequence[Part]) -> None:
    await start()
    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(_keep(part))


async def _keep(part: Part) -> None:
    """Start the part again whenever it ends, with a growing delay if it does so often."""
    delay = FIRST_DELAY_SECONDS
    started = time.monotonic()
    while part.child:
        result = await part.child.process.wait()
        if time.monotonic() - started > SETTLED_SECONDS:
            delay = FIRST_DELAY_SECONDS
        say(f"{part.name} {_ending(result)}; starting it again in {delay:g} s (log: {part.child.log})")
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY_SECONDS)
        started = time.monotonic()
        try:
            await part.start()
        except StartError as error:
            say(str(error))
        else:
            say(f"{part.name} runs again")


def _ending(result: int) -> str:
    return f"was ended by {signal.Signals(-result).name}" if result < 0 else f"ended with status {result}"


async def _stop(parts: Sequence[Part]) -> None:
    for part in parts:
        if part.child and part.child.running:
            await part.child.stop(part.stop_seconds)
