"""What unstored responses leave behind for the WebSocket that they went over: they can be continued there alone."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]

# A client continues its last response, or goes back a few.
MOST_PER_CONNECTION = 16
# Of JSON, in the whole process; as Python objects some four times that. Whoever loses one sends its whole input again.
MOST_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Chain:
    """One connection's responses, the oldest first."""

    responses: deque[str] = field(default_factory=deque)


class Chains:
    """Keeps the most recently used items by connection and response."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, str], tuple[list[Json], int]] = OrderedDict()
        self._bytes = 0

    def find(self, chain: Chain, response: str) -> list[Json] | None:
        key = (id(chain), response)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def keep(self, chain: Chain, response: str, items: list[Json]) -> None:
        size = len(orjson.dumps(items))
        chain.responses.append(response)
        self._kept[id(chain), response] = items, size
        self._bytes += size
        if len(chain.responses) > MOST_PER_CONNECTION:
            self._drop((id(chain), chain.responses.popleft()))
        while self._bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))

    def forget(self, chain: Chain, response: str) -> None:
        self._drop((id(chain), response))

    def end(self, chain: Chain) -> None:
        """Its connection is closed."""
        for response in chain.responses:
            self._drop((id(chain), response))

    def _drop(self, key: tuple[int, str]) -> None:
        _, size = self._kept.pop(key, ([], 0))
        self._bytes -= size
