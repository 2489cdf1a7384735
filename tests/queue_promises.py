"""What the queue owes its clients and workers at any moment, compared with what Redis and PostgreSQL have."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from core.entry import UNCOUNTED
from tests.model_store import ModelStore, identity, read
from tests.queue_calls import Hot, Picture, Range
from worker.batch import replayed

FOR_EVER = -1
NOBODY = "-"


@dataclass(slots=True)
class Lease:
    """What a worker was promised."""

    epoch: int
    token: str
    first: int
    end: int
    deadline_ms: int
    session: str
    former: str
    failures: int
    """At the claim that made it."""
    alone: frozenset[str] = frozenset()
    """Who has tried its one entry with nothing else in hands, and not come to an end."""
    excused: bool = False
    """Given back, and not because of what is in it."""

    @property
    def former_of_next(self) -> str:
        """Whose transactions may be open when this range is claimed again, the last one first."""
        names = [self.session, *self.former.split(",")]
        return ",".join(dict.fromkeys(name for name in names if name != NOBODY)) or NOBODY

    def covers(self, one: Range) -> bool:
        return (self.epoch, self.token, self.first, self.end) == (one.epoch, one.token, one.first, one.end)


@dataclass(slots=True)
class Expected:
    """What the queue should hold: `entries` from the offset `base` on, of which the acknowledged ones are marked."""

    base: int = 0
    following: int = 0
    entries: list[bytes] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)
    leases: list[Lease] = field(default_factory=list)

    def copy(self) -> "Expected":
        leases = [dataclasses.replace(lease) for lease in self.leases]
        return dataclasses.replace(self, entries=list(self.entries), acked=set(self.acked), leases=leases)

    def part(self, first: int, end: int) -> list[bytes]:
        return self.entries[first - self.base : end - self.base]

    @property
    def tail(self) -> int:
        return self.base + len(self.entries)

    def unacknowledged(self) -> list[bytes]:
        return [entry for offset, entry in enumerate(self.entries, self.base) if offset not in self.acked]

    def acknowledge(self, lease: Lease) -> None:
        self.leases.remove(lease)
        self.acked.update(range(lease.first, lease.end))
        while self.base in self.acked:
            self.acked.remove(self.base)
            self.entries.pop(0)
            self.base += 1


def broken_promises(picture: Picture, expected: Expected, store: ModelStore, promised: set[str]) -> Iterator[str]:
    """What does not hold, worst first."""
    queued = {identity(entry) for entry in picture.queue}
    if lost := sorted(name for name in promised - queued if not store.has(name)):
        yield f"neither queued nor stored: {lost}"
    if (picture.head, picture.queue) != (expected.base, expected.entries):
        yield f"the queue has {len(picture.queue)} entries from {picture.head}, not those of {expected}"
    yield from _untiled(picture)
    yield from _misordered(picture)
    unstored = [entry for entry in map(read, expected.unacknowledged()) if entry is not None]
    counts = Counter(entry.conversation for entry in unstored if UNCOUNTED not in entry.extra)
    for name, hot in picture.hot.items():
        yield from _uncounted(name, hot, counts[name])
        wanted = [entry for entry in unstored if entry.conversation == name and not replayed(entry)]
        if missing := [entry.id for entry in wanted if b"%d %b" % (entry.position, entry.body) not in hot.elements]:
            yield f"neither stored nor in the hot copy of {name}: {missing}"


def _untiled(picture: Picture) -> Iterator[str]:
    """Each offset from the head to the first never leased one is leased or acknowledged, once."""
    ranges = sorted([(first, end) for first, end, _ in picture.leases] + list(picture.acked.items()))
    reached = picture.head
    for first, end in ranges:
        if first != reached:
            yield f"ranges overlap or leave a gap at {reached}: {ranges}"
            return
        reached = end
    if reached != max(picture.following, picture.head):
        yield f"{reached}:{picture.following} is neither leased nor acknowledged"


def _misordered(picture: Picture) -> Iterator[str]:
    positions = defaultdict(list)
    for entry in map(read, picture.queue):
        if entry is not None and not replayed(entry):
            positions[entry.conversation].append(entry.position)
    for name, line in positions.items():
        if any(one >= other for one, other in pairwise(line)):
            yield f"positions of {name} are {line}"


def _uncounted(name: str, hot: Hot, unstored: int) -> Iterator[str]:
    """The count of a hot copy's queued entries is right, and decides whether Redis may evict it."""
    counted = int(hot.fields.get(b"unstored", b"0"))
    if hot.fields and counted != unstored:
        yield f"unstored of {name} is {counted}, but {unstored} of its entries are"
    if any(life >= 0 for life in hot.lives_ms) and unstored:
        yield f"the hot copy of {name} may go, but {unstored} of its entries are not stored"
    if FOR_EVER in hot.lives_ms and not unstored:
        yield f"the hot copy of {name} lives for ever, though all of it is stored"


def leftovers(picture: Picture, store: ModelStore, promised: set[str]) -> Iterator[str]:
    """What is wrong once everything is drained."""
    if picture.queue or picture.head != picture.following:
        yield f"{len(picture.queue)} entries are left"
    books = picture.leases, picture.acked, picture.sessions, picture.attempts, picture.alone
    if any(books):
        yield f"books are left of an empty queue: {books}"
    if missing := sorted(name for name in promised if not store.has(name)):
        yield f"never stored: {missing}"
