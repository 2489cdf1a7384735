"""Turns and the hot history as their model sees them: the product's own functions, and what they left in Redis."""

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from api.history import changes, orphans, steps
from api.history.changes import Ticket
from api.history.losses import NOTHING_STORED
from api.history.steps import Begun, Flush, Opening
from api.turn.ending import make_ending
from core.entry import Entry, Kind, parse
from core.queue import QUEUE, renew
from tests.entries import TENANT
from tests.model_server import ModelServer
from tests.queue_calls import EXPIRATION_SECONDS, LIMIT, keys
from worker import queue
from worker.queue import Lease, Stored


@dataclass(frozen=True, slots=True)
class Turn:
    """What one pod knows of a turn: whoever takes it over has a token of its own."""

    conversation: str
    response: str
    token: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader has read from PostgreSQL, under the ticket that it had taken before."""

    conversation: str
    ticket: str
    last: int
    items: list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class HotCopy:
    """A conversation's two keys; a life in ms is -1 for ever and -2 for no key."""

    fields: dict[bytes, bytes]
    elements: list[bytes]
    lives_ms: tuple[int, int]

    @property
    def whole(self) -> bool:
        return b"len" in self.fields and int(self.fields[b"len"]) == len(self.elements)


def said(name: str) -> bytes:
    return orjson.dumps({"id": name})


@dataclass(slots=True)
class TurnCalls:
    server: ModelServer
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def renew(self) -> None:
        """Bind the queue to this run of Redis."""
        self.server.run(renew(self.server.client, next(self._numbers)))

    def append(self, conversation: str, names: list[str], *, create: bool) -> str:
        items = [(name, said(name)) for name in names]
        new: dict[str, Any] = {"created_at": 1, "metadata": b"{}"} if create else {}
        return self.server.run(changes.append(self.server.client, TENANT, conversation, items, LIMIT, **new)).reason

    def begin(self, turn: Turn) -> tuple[str, list[bytes]]:
        """What it answers, and the history."""
        names = TENANT, turn.response, turn.token, f"thr_{turn.response}"
        opening = Opening(*names, request=b"{}", conversation=turn.conversation)
        begun = self.server.run(steps.begin(self.server.lanes, opening, LIMIT))
        return ("ok", begun.items) if isinstance(begun, Begun) else (begun.reason, [])

    def flush(self, turn: Turn) -> str:
        one = Flush(TENANT, turn.conversation, turn.response, turn.token, log=b"", last_sequence=0)
        return self.server.run(steps.flush(self.server.client, [one]))[0]

    def finish(self, turn: Turn, names: list[str]) -> str:
        """The last item is the output; without any, the turn has produced nothing."""
        final = {"status": "completed" if names else "failed", "usage": None}
        inputs, output = [{"id": name} for name in names[:-1]], [{"id": name} for name in names[-1:]]
        ending = make_ending(turn.response, final, inputs, output, b"{}", b"", 0)
        ids = TENANT, turn.conversation, turn.response, turn.token
        return self.server.run(steps.finish(self.server.lanes, *ids, ending))[0]

    def takeover(self, response: str, token: str) -> bool:
        taken = self.server.run(orphans.takeover(self.server.client, TENANT, response, token))
        return taken is not None

    def hand_over(self, turn: Turn) -> None:
        ids = TENANT, turn.conversation, turn.response, turn.token
        self.server.run(orphans.hand_over(self.server.client, *ids))

    def abandon(self, turn: Turn) -> bool:
        opening = Opening(TENANT, turn.response, turn.token, f"thr_{turn.response}", request=b"{}")
        return self.server.run(steps.abandon(self.server.client, opening, EXPIRATION_SECONDS))

    def delete(self, conversation: str) -> str:
        return self.server.run(changes.delete_conversation(self.server.client, TENANT, conversation)).reason

    def delete_item(self, conversation: str, name: str) -> str:
        return self.server.run(changes.delete_item(self.server.client, TENANT, conversation, name)).reason

    def take_ticket(self, conversation: str) -> Ticket | None:
        return self.server.run(changes.take_ticket(self.server.client, TENANT, conversation))

    def ticket_runs_out(self, conversation: str) -> None:
        self.server.run(changes.drop_ticket(self.server.client, TENANT, conversation))

    def warm(self, loaded: Loaded) -> None:
        stored = replace(NOTHING_STORED, last_position=loaded.last, items=loaded.items)
        names = TENANT, loaded.conversation, loaded.ticket
        self.server.run(changes.warm(self.server.client, *names, stored, EXPIRATION_SECONDS))

    def evict(self, conversation: str, which: tuple[bool, bool]) -> None:
        """As Redis does when its memory is full: key by key, and only those with a time to live."""
        for name, wanted in zip(keys(conversation), which, strict=True):
            if wanted and self.server.redis.pttl(name) > 0:
                self.server.redis.delete(name)

    def queued(self) -> list[Entry]:
        entries: Any = self.server.redis.lrange(QUEUE, 0, -1)
        return [parse(entry) for entry in entries]

    def claim(self, count: int) -> Lease | None:
        return self.server.run(queue.claim(self.server.client, queue.new_token(), "-", count))

    def ack(self, lease: Lease) -> bool:
        entries = [parse(entry) for entry in lease.entries]
        stored = Stored(
            counts=Counter((entry.tenant, entry.conversation) for entry in entries),
            responses={(entry.tenant, entry.id) for entry in entries if entry.kind is Kind.RESPONSE},
            deleted_conversations={
                (entry.tenant, entry.id) for entry in entries if entry.kind is Kind.DELETE_CONVERSATION
            },
        )
        return self.server.run(queue.ack(self.server.client, lease, stored, EXPIRATION_SECONDS))

    def hot(self, conversation: str) -> HotCopy:
        name, items = keys(conversation)
        pipeline: Any = self.server.redis.pipeline(transaction=False)
        pipeline.hgetall(name).lrange(items, 0, -1).pttl(name).pttl(items)
        fields, elements, *lives = pipeline.execute()
        return HotCopy(fields, elements, (lives[0], lives[1]))

    def running(self) -> set[str]:
        members: Any = self.server.redis.zrange("running", 0, -1)
        return {member.decode().partition(":")[2] for member in members}
