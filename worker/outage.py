"""One outside system that this worker waits for: said once when it goes away, once when it is back."""

import asyncio
import logging
import random
import time

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class Outage:
    """`trouble` tells in words what is wrong, and is None while all is well; at first nobody knows."""

    def __init__(self, system: str, stop: asyncio.Event) -> None:
        self.system = system
        self.trouble: str | None = f"{system}: not reached yet"
        self._told = False
        self._stop = stop
        self._since = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def note(self, trouble: str) -> None:
        """Of who waits by itself."""
        self.trouble = trouble

    async def pause(self, trouble: str) -> None:
        """Note what is wrong and wait a little longer than the last time; the process's stop ends the wait."""
        if not self._told:
            self._told = True
            self._since = time.monotonic()
            log.error("waiting", extra={"system": self.system, "trouble": trouble})
        self.trouble = trouble
        # Jitter, so that not all workers come back in the same instant.
        seconds = self._pause_seconds * random.uniform(0.5, 1)  # noqa: S311 - nothing secret
        self._pause_seconds = min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    def over(self) -> None:
        self.trouble = None
        if not self._told:
            return
        self._told = False
        self._pause_seconds = FIRST_PAUSE_SECONDS
        seconds = round(time.monotonic() - self._since, 3)
        log.info("back", extra={"system": self.system, "away_seconds": seconds})
