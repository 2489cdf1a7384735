"""How the scripts of turns and of the hot history are called, as api/history*.py do it, for a model of them.

Everything that a change of the protocol changes about a call stands here and nowhere else among the models.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.history import IDEMPOTENCY_SECONDS, LOCK_MS, LOG_SECONDS
from core.entry import Entry, Kind, item_tail, parse, response_tail, tail
from core.queue import QUEUE
from tests.entries import TENANT
from tests.model_server import ModelServer
from tests.queue_calls import EXPIRATION_SECONDS, LIMIT, NO_IDEMPOTENCY, TICKET_SECONDS, keys
from worker.queue import HOT_SECONDS, LEASE_MS, MAX_BYTES, MAX_FAILURES

TURN_FOLDERS = {
    "api": (
        "abandon",
        "append",
        "begin",
        "delete_conversation",
        "delete_item",
        "finish",
        "flush",
        "take_ticket",
        "takeover",
        "warm",
    ),
    "core": ("renew",),
    "worker": ("claim", "ack"),
}


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
    elements: list[bytes]


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


def _first(reply: Any) -> Any:
    """Some scripts answer more than the outcome."""
    return reply[0] if isinstance(reply, list) else reply


@dataclass(slots=True)
class TurnCalls:
    server: ModelServer
    _numbers: int = field(default=0)

    def renew(self) -> None:
        """Bind the queue to this run of Redis."""
        self.server.call("renew", self._number(), 0)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def append(self, conversation: str, names: list[str], *, create: bool) -> str:
        tails = (item_tail(name, None, said(name)) for name in names)
        metadata = "{}" if create else ""
        token = f"append{self._number()}"
        arguments = (TENANT, conversation, int(create), LIMIT, 1, metadata, token, *NO_IDEMPOTENCY)
        reply = self.server.call("append", *arguments, *tails)
        outcome: str = reply[0].decode()
        return outcome

    def begin(self, turn: Turn) -> tuple[str, list[bytes]]:
        """What it answers, and the history."""
        names = TENANT, turn.response, turn.token, LOCK_MS, LIMIT, turn.conversation
        reply = self.server.call("begin", *names, "", "", "", f"thr_{turn.response}", "{}", "", "", "", 0)
        return reply[0].decode(), reply[2] if reply[0] == b"ok" else []

    def flush(self, turn: Turn) -> str:
        names = TENANT, turn.conversation, turn.response, turn.token
        outcome: str = self.server.call("flush", *names, LOCK_MS, "", 0).decode()
        return outcome

    def finish(self, turn: Turn, names: list[str]) -> str:
        """The first item is the input; without any, the turn has produced nothing."""
        status = "completed" if names else "failed"
        entry = response_tail(turn.response, min(1, len(names)), max(len(names) - 1, 0), b"{}")
        tails = (item_tail(name, turn.response, said(name)) for name in names)
        ids = TENANT, turn.conversation, turn.response, turn.token
        numbers = LOG_SECONDS, IDEMPOTENCY_SECONDS, min(1, len(names))
        outcome: str = _first(
            self.server.call("finish", *ids, status, "{}", entry, "", 0, *numbers, "[]", *tails)
        ).decode()
        return outcome

    def takeover(self, response: str, token: str) -> bool:
        return bool(self.server.call("takeover", TENANT, response, token, LOCK_MS)[0] == b"ok")

    def abandon(self, turn: Turn) -> bool:
        return bool(self.server.call("abandon", TENANT, turn.response, turn.token, EXPIRATION_SECONDS))

    def delete(self, conversation: str) -> str:
        token = f"delete{self._number()}"
        entry = tail(Kind.DELETE_CONVERSATION, conversation)
        outcome: str = _first(self.server.call("delete_conversation", TENANT, conversation, token, entry)).decode()
        return outcome

    def delete_item(self, conversation: str, name: str) -> str:
        token = f"delete{self._number()}"
        reply = self.server.call("delete_item", TENANT, conversation, token, name, tail(Kind.DELETE_ITEM, name))
        outcome: str = reply[0].decode()
        return outcome

    def take_ticket(self, conversation: str) -> str | None:
        ticket = f"ticket{self._number()}"
        return ticket if _first(self.server.call("take_ticket", TENANT, conversation, ticket, TICKET_SECONDS)) else None

    def ticket_runs_out(self, conversation: str) -> None:
        self.server.redis.delete(f"load:{TENANT}:{conversation}")

    def warm(self, loaded: Loaded) -> bool:
        names = TENANT, loaded.conversation, loaded.ticket, EXPIRATION_SECONDS
        return bool(self.server.call("warm", *names, 1, "{}", loaded.last, "", 0, *loaded.elements))

    def evict(self, conversation: str, which: tuple[bool, bool]) -> None:
        """As Redis does when its memory is full: key by key, and only those with a time to live."""
        for name, wanted in zip(keys(conversation), which, strict=True):
            if wanted and self.server.redis.pttl(name) > 0:
                self.server.redis.delete(name)

    def queued(self) -> list[Entry]:
        entries: Any = self.server.redis.lrange(QUEUE, 0, -1)
        return [parse(entry) for entry in entries]

    def claim(self, count: int) -> tuple[bytes, str, int, int, list[Entry]] | None:
        token = f"worker{self._number()}"
        reply = self.server.call("claim", token, "-", LEASE_MS, count, MAX_BYTES, HOT_SECONDS, MAX_FAILURES)
        if len(reply) == 3:
            return None
        epoch, _, _, first, end, _, _, entries = reply
        return epoch, token, first, end, [parse(entry) for entry in entries]

    def ack(self, epoch: bytes, token: str, first: int, end: int, entries: list[Entry]) -> bool:
        counts = Counter(entry.conversation for entry in entries)
        arguments: list[str | int] = [len(counts)]
        for conversation, count in counts.items():
            arguments += (TENANT, conversation, count)
        for kind in (Kind.RESPONSE, Kind.DELETE_CONVERSATION):
            names = [entry.id for entry in entries if entry.kind is kind]
            arguments.append(len(names))
            for name in names:
                arguments += (TENANT, name)
        # No response is deleted or removed, no hot copy stale.
        arguments += (0, 0, 0)
        return bool(self.server.call("ack", epoch, token, first, end, EXPIRATION_SECONDS, *arguments))

    def hot(self, conversation: str) -> HotCopy:
        name, items = keys(conversation)
        pipeline: Any = self.server.redis.pipeline(transaction=False)
        pipeline.hgetall(name).lrange(items, 0, -1).pttl(name).pttl(items)
        fields, elements, *lives = pipeline.execute()
        return HotCopy(fields, elements, (lives[0], lives[1]))

    def running(self) -> set[str]:
        members: Any = self.server.redis.zrange("running", 0, -1)
        return {member.decode().partition(":")[2] for member in members}
