"""The ledger: what users said, what they were told, and what they never heard back about."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson


class Keyed(NamedTuple):
    """A question that is asked again, with its Idempotency-Key, until it is answered."""

    text: str
    key: str


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
    unsure_together: list[list[str]] = field(default_factory=list)
    """Those of them that one act brought: all are there, or none."""
    asking: Keyed | None = None
    deleted: bool | None = False
    """Its delete was acknowledged; None: it was tried, and nobody answered."""

    def hear(self, texts: list[str]) -> None:
        self.unsure.difference_update(texts)
        self.told += texts

    def doubt(self, said: list[str]) -> None:
        # What echoes it may be there too, and is told apart by its mark.
        self.unsure.update([*said, *(answered(text) for text in said)])
        if len(said) > 1:
            self.unsure_together.append(said)


@dataclass
class Ledger:
    talks: list[Talk] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    """Conversations that came into the queue by other ways than a user's."""
    operations: int = 0
    looked: int = 0
    """How often somebody looked whether what was acknowledged last is shown."""
    stale: list[str] = field(default_factory=list)
    """When it was not."""
    refused: Counter[str] = field(default_factory=Counter)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def acknowledged(self) -> int:
        return sum(len(talk.told) for talk in self.talks)

    def text(self) -> str:
        """A text that nobody said before."""
        return f"t-{next(self._numbers):06}."


def answered(text: str) -> str:
    """How the ledger calls a model's answer, since the echo says the same as its user."""
    return f"answer {text}"


def text_of(item: bytes) -> str:
    body = orjson.loads(item)
    content = body["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return answered(text) if body.get("role") == "assistant" else text


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
    torn: list[str] = field(default_factory=list)
    """Conversations that have a part of what one act brought."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.misordered or self.resurrected or self.torn)

    def compare(self, talk: Talk, found: list[str], dead: set[str]) -> None:
        """`dead` are texts in dead letters: kept, though not in the conversation. They are unique among all talks."""
        if talk.deleted or (talk.deleted is None and not found):
            self.resurrected += found
            return
        counts = Counter(found)
        told = set(talk.told)
        self.lost += [text for text in talk.told if text not in counts and text not in dead]
        self.doubled += [text for text, count in counts.items() if count > 1]
        self.resurrected += [text for text in counts if text not in told and text not in talk.unsure]
        certain = list(dict.fromkeys(text for text in found if text in told))
        if certain != [text for text in talk.told if text in counts]:
            self.misordered.append(talk.conversation)
        for texts in talk.unsure_together:
            if 0 < sum(text in counts or text in dead for text in texts) < len(texts):
                self.torn.append(talk.conversation)
