"""The queue as its model sees it: the product's own functions, and a picture of what they left in Redis."""

from dataclasses import dataclass, fields, replace
from typing import Any

from api.history import changes
from api.history.losses import NOTHING_STORED
from core.queue import ACKED, ALONE, ATTEMPTS, LEASES, META, QUEUE, SESSIONS, renew
from tests.entries import TENANT
from tests.model_server import ModelServer
from worker import queue
from worker.batch import marked
from worker.queue import Lease, Stored

LIMIT = 1_000_000
EXPIRATION_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Range(Lease):
    """A lease, and the holder's own session in PostgreSQL."""

    session: str


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


def keys(conversation: str, tenant: str = TENANT) -> tuple[str, str]:
    return f"conv:{tenant}:{conversation}", f"items:{tenant}:{conversation}"


def _lease(member: bytes) -> tuple[int, int, str]:
    first, end, token = member.decode().split(":", 2)
    return int(first), int(end), token


@dataclass(slots=True)
class QueueCalls:
    server: ModelServer
    counted_tokens: bool = False
    """A broken variant: tokens are a counter of Redis, which goes back with it."""
    _epochs: int = 0

    def claim(self, token: str, session: str, max_entries: int) -> Range | None:
        if self.counted_tokens:
            token = str(self.server.redis.incr("model:tokens"))
        lease = self.server.run(queue.claim(self.server.client, token, session, max_entries))
        if lease is None:
            return None
        return Range(**{field.name: getattr(lease, field.name) for field in fields(Lease)}, session=session)

    def ack(self, one: Range, stored: Stored) -> bool:
        return self.server.run(queue.ack(self.server.client, one, stored, EXPIRATION_SECONDS))

    def extend(self, one: Range) -> bool:
        return self.server.run(queue.extend(self.server.client, one))

    def release(self, one: Range, *, ended: bool, failed: bool) -> bool:
        return self.server.run(queue.release(self.server.client, one, ended=ended, failed=failed))

    def try_alone(self, one: Range) -> int | None:
        return self.server.run(queue.try_alone(self.server.client, one))

    def replay(self, conversation: str, source: bytes, letter: int) -> None:
        counted, uncounted = marked(source, letter), marked(source, letter, counted=False)
        self.server.run(queue.replay(self.server.client, TENANT, conversation, counted, uncounted))

    def append(self, conversation: str, items: list[tuple[str, bytes]], *, create: bool) -> str:
        created_at = 1 if create else None
        steps = changes.append(self.server.client, TENANT, conversation, items, LIMIT, created_at=created_at)
        return self.server.run(steps).reason

    def load(self, conversation: str, last: int, items: list[tuple[int, bytes]]) -> bool:
        """What api/loading.py does with what PostgreSQL has."""
        client = self.server.client
        ticket = self.server.run(changes.take_ticket(client, TENANT, conversation))
        if ticket is None:
            return False
        stored = replace(NOTHING_STORED, last_position=last, items=items)
        self.server.run(changes.warm(client, TENANT, conversation, ticket.token, stored, EXPIRATION_SECONDS))
        return bool(self.server.redis.exists(keys(conversation)[0]))

    def renew(self, floor: int) -> None:
        """What must happen once Redis is another one than before, before anybody goes on."""
        self._epochs += 1
        self.server.run(renew(self.server.client, self._epochs, floor))

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
