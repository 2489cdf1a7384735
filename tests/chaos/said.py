"""The ledger: what users said, what they were told, and what they never heard back about."""

import itertools
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Talk:
    """One conversation as its only user knows it."""

    conversation: str
    told: list[str] = field(default_factory=list)
    """The texts that were acknowledged, in the order of acknowledgement."""
    responses: list[str] = field(default_factory=list)
    """Ids of the acknowledged ones."""
    unsure: set[str] = field(default_factory=set)
    """Texts that may be there once or not at all: nobody answered whether they were taken."""
    deleted: bool = False
    """Its delete was acknowledged."""


@dataclass
class Ledger:
    talks: list[Talk] = field(default_factory=list)
    operations: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def acknowledged(self) -> int:
        return sum(len(talk.told) for talk in self.talks)

    def text(self) -> str:
        """A text that nobody said before."""
        return f"t-{next(self._numbers):06}."


@dataclass
class Damage:
    """How what is there differs from what was told; all empty when every promise was kept."""

    lost: list[str] = field(default_factory=list)
    """Texts, and ids of responses."""
    doubled: list[str] = field(default_factory=list)
    misordered: list[str] = field(default_factory=list)
    """Conversations."""
    resurrected: list[str] = field(default_factory=list)
    """What was deleted, and what nobody ever said."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.misordered or self.resurrected)

    def compare(self, talk: Talk, found: list[str], dead: set[str]) -> None:
        """`dead` are texts in dead letters: kept, though not in the conversation. They are unique among all talks."""
        if talk.deleted:
            self.resurrected += found
            return
        counts = Counter(found)
        told = set(talk.told)
        self.lost += [text for text in talk.told if text not in counts and text not in dead]
        self.doubled += [text for text, count in counts.items() if count > 1 and text != ""]
        self.resurrected += [text for text in counts if text not in told and text not in talk.unsure]
        certain = [text for text in found if text in told]
        expected = [text for text in talk.told if text in counts]
        if counts and max(counts.values()) == 1 and certain != expected:
            self.misordered.append(talk.conversation)
