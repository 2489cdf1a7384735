"""A conversation as its clients were told of it, and as PostgreSQL has it, for the models."""

from dataclasses import dataclass, field

from core.entry import Entry, Kind
from tests.turn_calls import Turn, said


@dataclass(slots=True)
class Talk:
    """What clients were told of one conversation."""

    name: str
    items: list[tuple[int, str]] = field(default_factory=list)
    deleted: bool = False
    holder: Turn | None = None
    deadline_ms: int = 0

    @property
    def elements(self) -> list[bytes]:
        return [b"%d %b" % (position, said(name)) for position, name in self.items]


@dataclass(slots=True)
class Stored:
    """PostgreSQL's rows of one conversation."""

    known: bool = False
    deleted: bool = False
    last: int = 0
    items: dict[int, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def take(self, entry: Entry) -> bool:
        """False when another item has its position."""
        match entry.kind:
            case Kind.DELETE_CONVERSATION:
                self.deleted, self.items = True, {}
            case Kind.DELETE_ITEM:
                self.gone.add(entry.id)
                self.items = {position: name for position, name in self.items.items() if name != entry.id}
            case Kind.ITEM if not self.deleted and entry.id not in self.gone:
                if self.items.setdefault(entry.position, entry.id) != entry.id:
                    return False
        if entry.kind in {Kind.ITEM, Kind.CONVERSATION, Kind.RESPONSE} and not self.deleted:
            self.known, self.last = True, max(self.last, entry.position)
        return True

    @property
    def elements(self) -> list[bytes]:
        return [b"%d %b" % item for item in self.bodies]

    @property
    def bodies(self) -> list[tuple[int, bytes]]:
        return [(position, said(name)) for position, name in sorted(self.items.items())]
