"""What every request may use: made once in main.py, given to every function that needs it."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from redis.asyncio import Redis

from api.lanes import Lanes
from api.settings import Settings
from api.upstream.exchange import Upstream

if TYPE_CHECKING:
    from api.turn.running import Turn


@dataclass(frozen=True, slots=True)
class Connections:
    settings: Settings
    redis: Redis
    lanes: Lanes
    store: "asyncpg.Pool[Any]"
    upstream: Upstream
    tasks: asyncio.TaskGroup
    """Owns every turn: a client that leaves does not end one, the end of the process does."""
    running: "dict[str, Turn]" = field(default_factory=dict)
    """The turns of this process by response id."""
