"""What every request may use: made once in main.py, given to every function that needs it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from redis.asyncio import Redis

from api.chains import Chains
from api.lanes import Lanes
from api.recent import Recent
from api.ring import Ring
from api.settings import Settings
from api.upstream.routing import Routing
from core.epochs import Epochs

if TYPE_CHECKING:
    from api.turn.running import Turn


# Holders renew within a second of Redis's return; slow ones and their own reconnecting get the rest.
TRUCE_SECONDS = 12.0
# For a process that starts: Redis may have come back just before. Shorter than a lock, so that the locks of a process
# that died are free in time also when its successor is the only one there.
FIRST_TRUCE_SECONDS = 5.0


class Truce:
    """After Redis was away every lock's deadline has passed, so for a while nobody takes over anything."""

    def __init__(self) -> None:
        self._until = time.monotonic() + FIRST_TRUCE_SECONDS

    def begin(self, seconds: float = TRUCE_SECONDS) -> None:
        self._until = max(self._until, time.monotonic() + seconds)

    @property
    def holds(self) -> bool:
        return time.monotonic() < self._until


@dataclass(frozen=True, slots=True)
class Connections:
    settings: Settings
    redis: Redis
    epochs: Epochs
    ring: Ring
    lanes: Lanes
    store: "asyncpg.Pool[Any]"
    upstream: Routing
    tasks: asyncio.TaskGroup
    """Owns every turn: a client that leaves does not end one, the end of the process does."""
    running: "dict[str, Turn]" = field(default_factory=dict)
    """The stored turns of this process by response id."""
    unstored: "set[Turn]" = field(default_factory=set)
    chains: Chains = field(default_factory=Chains)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """The process was told to stop."""
    recent: Recent = field(default_factory=Recent)
    truce: Truce = field(default_factory=Truce)
