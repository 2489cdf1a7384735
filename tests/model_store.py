"""PostgreSQL as a model needs it: rows by identity, dead letters, sessions with an open transaction each."""

from collections import Counter
from dataclasses import dataclass, field

from core.entry import UNCOUNTED, Entry, MalformedEntryError, parse
from tests.model_server import GuaranteeError
from tests.queue_calls import Range
from worker.batch import replayed
from worker.queue import Stored

POISON = "poison"
REFUSED = "refused"


class WorkerDiedError(Exception):
    """An entry has killed its worker."""


class SessionEndedError(Exception):
    """Somebody has ended this session, and its transaction with it."""


def read(source: bytes) -> Entry | None:
    try:
        return parse(source)
    except MalformedEntryError:
        return None


def identity(source: bytes) -> str:
    """The item's id, or an unreadable entry itself."""
    entry = read(source)
    return source.decode() if entry is None else entry.id


def kills(source: bytes) -> bool:
    """A poisoned entry does so until somebody replays it: by then the worker is mended."""
    entry = read(source)
    return entry is not None and entry.id.startswith(POISON) and not replayed(entry)


def refused(entry: Entry) -> bool:
    """What PostgreSQL does not take, until somebody replays it."""
    return entry.id.startswith(REFUSED) and not replayed(entry)


@dataclass(slots=True)
class Writing:
    """An open transaction; with `hopeless` its one entry becomes a dead letter."""

    entries: tuple[bytes, ...]
    hopeless: bool


@dataclass(slots=True)
class ModelStore:
    rows: dict[str, Entry] = field(default_factory=dict)
    dead: dict[str, bytes] = field(default_factory=dict)
    open: dict[str, Writing] = field(default_factory=dict)
    """By session."""
    ended: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    """Who held a range when Redis lost its memory: nobody can be told to end these."""
    _places: dict[tuple[str, int], str] = field(default_factory=dict)

    def end(self, sessions: str) -> None:
        """Of all that a claim has told of as former ones."""
        for session in sessions.split(","):
            self.ended.add(session)
            self.open.pop(session, None)

    def begin(self, one: Range, *, holds: bool, hopeless: bool) -> None:
        """Everything of a range's transaction but its COMMIT. Who holds the lease must not have to wait for another."""
        if one.session in self.ended:
            raise SessionEndedError
        if not hopeless and any(map(kills, one.entries)):
            raise WorkerDiedError
        for session, other in self.open.items():
            if holds and session not in self.forgotten and set(other.entries) & set(one.entries):
                raise GuaranteeError(f"{one.session} waits for the transaction of {session}, which nobody ends")
        self.open[one.session] = Writing(tuple(one.entries), hopeless)

    def commit(self, session: str) -> None:
        """Repetitions are absorbed, a clash is a broken promise."""
        writing = self.open.pop(session, None)
        if writing is None:
            raise SessionEndedError
        for source in writing.entries:
            entry = read(source)
            if entry is None or ((writing.hopeless or refused(entry)) and entry.id not in self.rows):
                self.dead[identity(source)] = source
            elif not writing.hopeless:
                self._insert(entry, session)

    def _insert(self, entry: Entry, session: str) -> None:
        if self.rows.setdefault(entry.id, entry).position != entry.position:
            raise GuaranteeError(f"{entry.id} is there at another position")
        if self._places.setdefault((entry.conversation, entry.position), entry.id) != entry.id:
            raise GuaranteeError(f"two items at position {entry.position} of {entry.conversation}")
        if replayed(entry):
            self.dead.pop(entry.id, None)
        elif entry.id in self.dead and session not in self.forgotten:
            raise GuaranteeError(f"{entry.id} is stored, and a dead letter too")

    def has(self, name: str) -> bool:
        return name in self.rows or name in self.dead

    def floor(self) -> int:
        """What no position may fall behind when Redis has lost its memory."""
        entries = [*self.rows.values(), *filter(None, map(read, self.dead.values()))]
        return max((entry.position + 1 for entry in entries), default=0)

    def hot_copy(self, conversation: str) -> tuple[int, list[tuple[int, bytes]]]:
        """What a cold load reads: the last position, also of dead letters, and the items by position."""
        rows = {row.position: row.body for row in self.rows.values() if row.conversation == conversation}
        dead = [entry for entry in map(read, self.dead.values()) if entry and entry.conversation == conversation]
        last = max([*rows, *(entry.position for entry in dead)], default=0)
        return last, sorted(rows.items())


def noted(one: Range) -> Stored:
    """What an acknowledgement says of a stored range: entries by conversation, and whose hot copy is stale now."""
    entries = [entry for entry in map(read, one.entries) if entry is not None]
    return Stored(
        counts=Counter((entry.tenant, entry.conversation) for entry in entries if UNCOUNTED not in entry.extra),
        stale_conversations={(entry.tenant, entry.conversation) for entry in entries if replayed(entry)},
    )
