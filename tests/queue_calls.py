"""How the queue's scripts are called, as worker/queue.py and api/history_changes.py do it, for models of the queue.

Everything that a change of the protocol changes about a call stands here and nowhere else among the models.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from core.entry import item_tail
from core.queue import ACKED, ALONE, ATTEMPTS, LEASES, META, QUEUE, SESSIONS
from tests.entries import TENANT
from tests.model_server import ModelServer
from worker.batch import marked
from worker.queue import HOT_SECONDS, LEASE_MS, MAX_BYTES, MAX_FAILURES

FOLDERS = {
    "core": ("renew",),
    "worker": ("claim", "ack", "extend", "release", "replay", "try_alone"),
    "api": ("append", "take_ticket", "warm", "read"),
}
LIMIT = 1_000_000
# Key, hash of the request, ids, and seconds.
NO_IDEMPOTENCY = ("", "", "", 0)
EXPIRATION_SECONDS = 1800
TICKET_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Range:
    """What a claim has answered to a worker; `session` is its own in PostgreSQL, `former` that of who was before it."""

    epoch: bytes
    token: str
    session: str
    first: int
    end: int
    failures: int
    former: str
    entries: tuple[bytes, ...]

    @property
    def suspect(self) -> bool:
        """One entry is left of a range whose holders died."""
        return self.failures >= MAX_FAILURES and len(self.entries) == 1


@dataclass(frozen=True, slots=True)
class Hot:
    """A conversation's two keys; a life in ms is -1 for ever and -2 for no key."""

    fields: dict[bytes, bytes]
    elements: list[bytes]
    lives_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """The queue and its bookkeeping at one moment."""

    head: int
    following: int
    queue: list[bytes]
    leases: dict[tuple[int, int, str], int]
    """Deadline (ms) by first offset, end and token."""
    acked: dict[int, int]
    sessions: int
    attempts: int
    alone: int
    hot: dict[str, Hot]


def keys(conversation: str) -> tuple[str, str]:
    return f"conv:{TENANT}:{conversation}", f"items:{TENANT}:{conversation}"


def _lease(member: bytes) -> tuple[int, int, str]:
    first, end, token = member.decode().split(":", 2)
    return int(first), int(end), token


@dataclass(slots=True)
class QueueCalls:
    server: ModelServer
    counted_tokens: bool = False
    """A broken variant: tokens are a counter of Redis, which goes back with it."""
    _epochs: int = 0
    _tickets: int = field(default=0)

    def claim(self, token: str, session: str, max_entries: int) -> Range | None:
        if self.counted_tokens:
            token = str(self.server.redis.incr("model:tokens"))
        arguments = (token, session, LEASE_MS, max_entries, MAX_BYTES, HOT_SECONDS, MAX_FAILURES)
        reply = self.server.call("claim", *arguments)
        if len(reply) == 3:
            return None
        epoch, _, _, first, end, failures, former, entries = reply
        return Range(epoch, token, session, first, end, failures, former.decode(), tuple(entries))

    def ack(self, one: Range, counts: Counter[str], stale: set[str]) -> bool:
        arguments: list[str | int] = [len(counts)]
        for conversation, count in counts.items():
            arguments += (TENANT, conversation, count)
        # No responses, nothing deleted, nothing removed.
        arguments += (0, 0, 0, 0, len(stale))
        for conversation in sorted(stale):
            arguments += (TENANT, conversation)
        return bool(self.server.call("ack", one.epoch, one.token, one.first, one.end, EXPIRATION_SECONDS, *arguments))

    def extend(self, one: Range) -> bool:
        return bool(self.server.call("extend", one.epoch, one.token, one.first, one.end, LEASE_MS))

    def release(self, one: Range, *, ended: bool, failed: bool) -> bool:
        arguments = (one.epoch, one.token, one.first, one.end, int(ended), int(failed))
        return bool(self.server.call("release", *arguments))

    def try_alone(self, one: Range) -> int | None:
        failed: int | None = self.server.call("try_alone", one.epoch, one.token, one.first, one.end)
        return failed

    def replay(self, conversation: str, source: bytes, letter: int) -> None:
        counted, uncounted = marked(source, letter), marked(source, letter, counted=False)
        self.server.call("replay", TENANT, conversation, counted, uncounted)

    def append(self, token: str, conversation: str, items: list[tuple[str, bytes]], *, create: bool) -> str:
        tails = (item_tail(name, None, body) for name, body in items)
        arguments = (TENANT, conversation, int(create), LIMIT, 1, "", token, *NO_IDEMPOTENCY)
        reply = self.server.call("append", *arguments, *tails)
        outcome: str = reply[0].decode()
        return outcome

    def load(self, conversation: str, last: int, elements: list[bytes]) -> bool:
        """What api/loading.py does with what PostgreSQL has."""
        self._tickets += 1
        ticket = f"ticket{self._tickets}"
        if self.server.call("take_ticket", TENANT, conversation, ticket, TICKET_SECONDS)[0] == 0:
            return False
        arguments = (TENANT, conversation, ticket, EXPIRATION_SECONDS, 1, "{}", last, "", 0)
        return bool(self.server.call("warm", *arguments, *elements))

    def renew(self, floor: int) -> None:
        """What must happen once Redis is another one than before, before anybody goes on."""
        self._epochs += 1
        self.server.call("renew", self._epochs, floor)

    def evict(self, conversation: str, *, hash_too: bool, list_too: bool) -> None:
        """As Redis does when its memory is full: key by key, and only those with a time to live."""
        for name, wanted in zip(keys(conversation), (hash_too, list_too), strict=True):
            if wanted and self.server.redis.pttl(name) > 0:
                self.server.redis.delete(name)

    def picture(self, conversations: tuple[str, ...]) -> Picture:
        pipeline: Any = self.server.redis.pipeline(transaction=False)
        pipeline.hmget(META, "head", "next").lrange(QUEUE, 0, -1).zrange(LEASES, 0, -1, withscores=True)
        pipeline.hgetall(ACKED).hlen(SESSIONS).hlen(ATTEMPTS).hlen(ALONE)
        for conversation in conversations:
            name, items = keys(conversation)
            pipeline.hgetall(name).lrange(items, 0, -1).pttl(name).pttl(items)
        replies: list[Any] = pipeline.execute()
        (head, following), queue, leases, acked, sessions, attempts, alone, *rest = replies
        return Picture(
            head=int(head or 0),
            following=int(following or 0),
            queue=queue,
            leases={_lease(member): int(score) for member, score in leases},
            acked={int(first): int(end) for first, end in acked.items()},
            sessions=sessions,
            attempts=attempts,
            alone=alone,
            hot={
                name: Hot(rest[at], rest[at + 1], tuple(rest[at + 2 : at + 4]))
                for name, at in zip(conversations, range(0, len(rest), 4), strict=True)
            },
        )
