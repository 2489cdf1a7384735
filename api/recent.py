"""Long histories that this process has read before, so that a turn on them does not fetch and decode them again.

Redis stays the one truth: begin compares the generation, which changes whenever an item of the hot list is not where it
was, and sends what is missing here.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

# A shorter history costs less than remembering it.
SHORTEST = 20
# Some 1.5 KB each as Python objects: 75 MB at the most.
MOST_ITEMS = 50_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """The first items of a hot list, oldest first; nobody changes them."""

    generation: bytes
    last_response: str
    items: list[Json]


NOTHING = Remembered(b"", "", [])


class Recent:
    """Keeps the most recently used histories by (tenant, thread)."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Remembered] = OrderedDict()
        self._threads: dict[tuple[str, str], str] = {}
        self._count = 0

    def find(self, tenant: str, conversation: str, previous_response: str) -> Remembered:
        """What is remembered of a conversation, or of the thread whose last response this is."""
        thread = conversation or self._threads.get((tenant, previous_response), "")
        found = self._kept.get((tenant, thread))
        if found is None:
            return NOTHING
        self._kept.move_to_end((tenant, thread))
        return found

    def keep(self, tenant: str, thread: str, history: Remembered) -> None:
        self._forget((tenant, thread))
        if len(history.items) < SHORTEST:
            return
        self._kept[tenant, thread] = history
        self._threads[tenant, history.last_response] = thread
        self._count += len(history.items)
        while self._count > MOST_ITEMS:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: tuple[str, str]) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            del self._threads[key[0], old.last_response]
            self._count -= len(old.items)
