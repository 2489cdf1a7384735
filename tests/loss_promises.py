"""What clients were told, entry by entry, and what must be left of it when Redis was lost."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import orjson

from core.entry import Entry, Kind, parse
from tests.loss_pods import Pod


@dataclass(eq=False, slots=True)
class Fact:
    """One entry that Redis has acknowledged to a process."""

    source: bytes
    entry: Entry
    pod: Pod
    remembered: bool
    """Its pod has it in its ring, or is about to put it back."""


@dataclass(slots=True)
class Facts:
    told: list[Fact] = field(default_factory=list)
    lost: set[Fact] = field(default_factory=set)
    """Whom nobody remembered when Redis was lost. A worker may still have it in hands."""
    stored: set[bytes] = field(default_factory=set)
    """What was committed."""
    queued: set[bytes] = field(default_factory=set)
    """What Redis has at this moment."""

    def add(self, pod: Pod, sources: Iterable[bytes], remembered: Iterable[bytes]) -> None:
        kept = set(remembered)
        known = {fact.source for fact in self.told}
        self.told += [Fact(one, parse(one), pod, one in kept) for one in sources if one not in known]

    def is_there(self, fact: Fact) -> bool:
        return fact.source in self.queued or fact.source in self.stored

    def excuse(self) -> None:
        """Redis was lost, or a process that remembered something died."""
        self.lost |= {fact for fact in self.told if not self.is_there(fact) and not fact.remembered}

    def forget(self, pod: Pod) -> None:
        """A process died, or what it remembered grew old."""
        for fact in self.told:
            if fact.pod is pod:
                fact.remembered = False
        self.excuse()

    def missing(self) -> Iterator[str]:
        """What ought to be there: nobody but a process that has not heard of the loss may be waited for."""
        for fact in self.told:
            waited_for = not fact.pod.knows or fact.pod.later.waiting
            if not self.is_there(fact) and fact not in self.lost and not waited_for:
                yield f"{fact.source!r} is lost, though its process remembered it"

    def of(self, talk: str, *kinds: Kind) -> list[Fact]:
        return [fact for fact in self.told if fact.entry.conversation == talk and fact.entry.kind in kinds]

    def shown(self, talk: str) -> tuple[list[str], set[str], bool | None]:
        """All items in order, those that a reader must see, and whether the talk is gone (None: it may be)."""
        items = self.of(talk, Kind.ITEM)
        deletes = self.of(talk, Kind.DELETE_ITEM)
        ends = self.of(talk, Kind.DELETE_CONVERSATION)
        hidden = {fact.entry.id for fact in deletes if self.is_sure(fact)}
        maybe_hidden = {fact.entry.id for fact in deletes}
        may = [fact.entry.id for fact in items if fact.entry.id not in hidden]
        must = {fact.entry.id for fact in items if self.is_sure(fact)} - maybe_hidden
        # Whose creation is lost may be there to some and not to others, with the items that were put back.
        born = any(map(self.is_sure, self.of(talk, Kind.CONVERSATION)))
        gone = True if any(map(self.is_sure, ends)) else None if ends or not born else False
        return may, must, gone

    def behind(self, response: Fact) -> tuple[list[str], set[str]]:
        """What may and what must be the history of a turn behind a response, across all that its thread comes from."""
        entry = response.entry
        thread, end = entry.conversation, entry.position + sum(map(int, entry.extra)) - 1
        may: list[str] = []
        must: set[str] = set()
        sure = True
        while thread:
            items = [fact for fact in self.of(thread, Kind.ITEM) if fact.entry.position <= end]
            deleted = self.deletes_in(thread)
            here = thread == entry.conversation
            shown = [fact for fact in items if not (here and any(map(self.is_sure, deleted(fact))))]
            may = [fact.entry.id for fact in shown] + may
            must |= {fact.entry.id for fact in items if sure and self.is_sure(fact) and not deleted(fact)}
            births = [fact for fact in self.of(thread, Kind.CONVERSATION) if b'"parent":null' not in fact.entry.body]
            sure = sure and all(map(self.is_sure, births))
            body = orjson.loads(births[0].entry.body) if births else {}
            thread, end = body.get("parent", ""), body.get("parent_position", 0)
        return may, must

    def deletes_in(self, thread: str) -> Callable[[Fact], list[Fact]]:
        """By item, what deletes it: in a hidden thread its response, too."""
        deletes = self.of(thread, Kind.DELETE_ITEM, Kind.DELETE_CONVERSATION, Kind.DELETE_RESPONSE)

        def of(item: Fact) -> list[Fact]:
            names = {item.entry.id, thread} | ({item.entry.extra[0]} if thread.startswith("thr_") else set())
            return [fact for fact in deletes if fact.entry.id in names]

        return of

    def shows_response(self, response: Fact) -> bool | None:
        """Whether a reader must, must not, or may find it."""
        deletes = self.of(response.entry.conversation, Kind.DELETE_CONVERSATION, Kind.DELETE_RESPONSE)
        ends = [fact for fact in deletes if fact.entry.id in (response.entry.id, response.entry.conversation)]
        if any(map(self.is_sure, ends)):
            # What was put back is shown until the worker finds it deleted, if PostgreSQL alone knows that.
            unaware = response.source in self.queued and not any(fact.source in self.queued for fact in ends)
            return None if unaware else False
        return None if ends or not self.is_sure(response) else True

    def is_sure(self, fact: Fact) -> bool:
        return self.is_there(fact) and fact not in self.lost

    def rows(self, talk: str) -> list[str]:
        """The items that PostgreSQL must have once all is drained, in order."""
        deletes = self.deletes_in(talk)
        return [
            fact.entry.id
            for fact in self.of(talk, Kind.ITEM)
            if fact.source in self.stored and not any(delete.source in self.stored for delete in deletes(fact))
        ]
