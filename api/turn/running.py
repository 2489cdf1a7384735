"""One turn that runs in this process: its events, those who follow them, and how it is interrupted."""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal

from api.turn.events import frame
from api.turn.measuring import Course
from core import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# Frames kept beyond the logged ones for readers who are a little behind; a slower one reads the log in Redis.
KEPT_FRAMES = 256
# A pod sends at most this many events that the log does not have, so that a successor's numbers lie above them.
UNLOGGED_LIMIT = 1000
# A comment this often keeps proxies from closing a quiet stream.
KEEPALIVE_SECONDS = 15.0

Json = dict[str, Any]
Interruption = Literal["cancelled", "lost", "gone", "shutdown"]


class Turn:
    """The state of a running turn. `streamed` ones have events; `stored` ones a lock to renew and a log."""

    def __init__(
        self,
        tenant: str,
        response: str,
        thread: str,
        token: str,
        *,
        streamed: bool,
        stored: bool = True,
        first_sequence: int = 0,
    ) -> None:
        self.tenant = tenant
        self.response = response
        self.thread = thread
        self.token = token
        self.streamed = streamed
        self.stored = stored
        self.start: Json = {}
        """The response as it stands before anything was produced."""
        self.repeatable = False
        """So far nothing was produced, and another process may run it again."""
        self.task: asyncio.Task[None] | None = None
        self.interruption: Interruption | None = None
        self.finishing = False
        """From here on nothing may interrupt it: its outcome is being written."""
        self.ended = False
        self.course = Course()
        self.span: Span | None = None
        """Where it is traced."""
        self.flushes = 0
        self.status = "unknown"
        self.body: bytes | None = None
        """The final body, once it is safe to show."""
        self.items: list[Json] = []
        """Of an unstored turn that has ended: all that its continuation reads."""
        self.failure: Exception | None = None
        """Why there is no final body, or why a client that does not stream gets an error instead of it."""
        self.renewed_at = time.monotonic()
        self.sequence = first_sequence
        self.logged = first_sequence
        """How many events Redis has."""
        self._frames: list[bytes] = []
        self._dropped = first_sequence
        self._waiting: list[asyncio.Future[bool]] = []
        self._nudged_sequence = first_sequence
        self._nudging = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._nudge)

    def emit(self, event: bytes, fields: bytes) -> None:
        if self.streamed:
            self._frames.append(frame(event, self.sequence, fields))
            self.sequence += 1

    def publish(self, ready: bytes) -> None:
        """Add a frame that was made, and logged, before it may be seen."""
        self._frames.append(ready)
        self.sequence += 1
        self.logged = self.sequence

    def notify(self, *, quiet: bool = False) -> None:
        """Wake everybody who waits for events or for the end; `quiet`: there are none, and for long."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(quiet)

    async def changed(self) -> bool:
        """Wait for news; True when only time has passed and a proxy may doubt that we live."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return await future

    def frames_from(self, sequence: int) -> list[bytes] | None:
        """The frames numbered `sequence` and above; None when they were dropped from memory already."""
        if sequence < self._dropped:
            return None
        return self._frames[sequence - self._dropped :]

    def unlogged(self) -> bytes:
        return b"".join(self._frames[self.logged - self._dropped :])

    def mark_logged(self, sequence: int) -> None:
        """Redis has every event below `sequence` now."""
        self.logged = max(self.logged, sequence)
        excess = self.logged - self._dropped - KEPT_FRAMES
        if excess > KEPT_FRAMES:
            del self._frames[:excess]
            self._dropped += excess
        self.notify()

    def mark_sent(self, sequence: int) -> None:
        """A reader has every event below `sequence`: for an unstored turn its only one, so nobody needs them again."""
        if not self.stored:
            self.mark_logged(sequence)

    async def room(self) -> None:
        """Wait while too many events are not logged yet: Redis is away, or nobody takes those of an unstored turn."""
        while self.sequence - self.logged > UNLOGGED_LIMIT:
            await self.changed()

    def interrupt(self, why: Interruption) -> None:
        """Stop asking the upstream; the turn then ends as `why` demands."""
        if self.interruption is None and not self.finishing and not self.ended and self.task is not None:
            self.interruption = why
            self.task.cancel(why)

    def leave(self) -> None:
        """Its only client went away."""
        self.interrupt("cancelled")

    def _nudge(self) -> None:
        if self.sequence == self._nudged_sequence:
            self.notify(quiet=True)
        self._nudged_sequence = self.sequence
        self._nudging = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._nudge)

    def end(self) -> None:
        self._nudging.cancel()
        self.ended = True
        if self.span is not None:
            self._tell(self.span)
        self.notify()

    def _tell(self, span: "Span") -> None:
        span.set_attributes(
            {
                "chatbot.tenant": self.tenant,
                "chatbot.response.id": self.response,
                "chatbot.response.status": self.status,
                "chatbot.flushes": self.flushes,
                "gen_ai.conversation.id": self.thread,
            }
        )
        if self.status in ("failed", "unknown"):
            tracing.fail(span, self.status if self.failure is None else tracing.error_type(self.failure))
