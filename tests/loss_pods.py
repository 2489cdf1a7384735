"""API processes and workers without their sockets: what they do and remember is their own code, step by step.

Redis is a model's (tests/model_server.py), PostgreSQL a real one.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import orjson

from api import deleting, reading
from api.changing import change
from api.connections import Connections
from api.errors import ApiError
from api.history import changes, orphans, steps
from api.history.losses import Ended
from api.history.steps import Opening
from api.ring import Ring
from api.settings import Settings
from api.turn.body import COMPLETED, Verdict, conclude
from api.turn.ending import make_ending
from api.turn.opening import open_turn
from api.turn.orphans import close_orphan
from api.upstream.routing import Routing
from core.epochs import Epochs, PutBack, nothing_remembered, nothing_shown
from core.queue import Receipt
from tests.model_server import ModelServer
from worker import queue
from worker.queue import Lease, Stored
from worker.storing import store_range

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

T = TypeVar("T")
MOST_ITEMS = 100
# Of one request; who is refused for ever asks more.
MOST_COMMANDS = 500
numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Stores:
    """What all processes of a model share."""

    loop: asyncio.AbstractEventLoop
    server: ModelServer
    settings: Settings
    routing: Routing
    pool: "asyncpg.Pool[Any]"
    connection: "Connection"


class OwnEpochs(Epochs):
    """A process's knowledge of the epoch, on connections that the model has already."""

    def __init__(self, stores: Stores, put_back: PutBack) -> None:
        super().__init__(stores.settings.redis, stores.settings.postgres, "model", put_back)
        self._stores, self._redis = stores, stores.server.client
        self.run = 0

    async def greet_anew(self) -> None:
        """What a new connection does before its first command."""
        if self.run != self._stores.server.runs:
            async with self._settling:
                await self._settle()
            self.run = self._stores.server.runs

    async def bring(self) -> None:
        await self._bring()

    async def _ask(self, question: Callable[["Connection"], Awaitable[T]]) -> T:
        return await question(self._stores.connection)


class Later(asyncio.TaskGroup):
    """What a process does beside its answers; the model says when."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Task[Any]] = []
        self._now = asyncio.Event()

    def create_task(
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[T]:
        assert isinstance(coro, Coroutine)
        task = asyncio.get_running_loop().create_task(self._carry(coro), name=name, context=context)
        self.waiting.append(task)
        return task

    async def _carry(self, steps: Coroutine[Any, Any, T]) -> T:
        try:
            await self._now.wait()
        except asyncio.CancelledError:
            steps.close()
            raise
        return await steps

    async def carry_all(self) -> None:
        self._now.set()
        waiting, self.waiting = self.waiting, []
        await asyncio.gather(*waiting)
        self._now.clear()

    async def drop_all(self) -> None:
        for task in self.waiting:
            task.cancel()
        await asyncio.gather(*self.waiting, return_exceptions=True)


class HeardRing(Ring):
    """`heard` is what it was given to remember."""

    def __init__(self, tasks: Later) -> None:
        super().__init__(tasks)
        self.heard: list[bytes] = []

    def keep(self, epochs: Epochs, receipt: Receipt | None, ended: Ended | None = None) -> None:
        super().keep(epochs, receipt, ended)
        if receipt is not None:
            self.heard += receipt.entries


@dataclass(frozen=True, slots=True)
class Turn:
    thread: str
    response: str
    token: str


class Process:
    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.epochs = OwnEpochs(stores, nothing_remembered)

    def do(self, steps: Coroutine[Any, Any, T]) -> T:
        """One request or one look, which greets Redis first if that is another one."""

        async def greeted() -> T:
            await self.epochs.greet_anew()
            return await steps

        self.stores.server.commands_left = MOST_COMMANDS
        return self.stores.loop.run_until_complete(greeted())

    def greet(self) -> None:
        self.stores.loop.run_until_complete(self.epochs.greet_anew())

    @property
    def knows(self) -> bool:
        """Whether it has heard of the present run of Redis."""
        return self.epochs.run == self.stores.server.runs


class Pod(Process):
    """An API process. What was refused (ApiError) is answered as its code."""

    def __init__(self, stores: Stores, tenant: str) -> None:
        super().__init__(stores)
        self.tenant, self.later = tenant, Later()
        self.ring = HeardRing(self.later)
        self.epochs = OwnEpochs(stores, self.ring.put_back)
        self.connections = Connections(
            settings=stores.settings,
            redis=stores.server.client,
            epochs=self.epochs,
            ring=self.ring,
            lanes=stores.server.lanes,
            store=stores.pool,
            upstream=stores.routing,
            tasks=self.later,
        )
        self.connections.truce.begin(0)

    def try_to(self, steps: Coroutine[Any, Any, T]) -> T | str:
        try:
            return self.do(steps)
        except ApiError as error:
            return error.code

    def end_later(self) -> None:
        self.do(self.later.carry_all())

    def die(self) -> None:
        self.stores.loop.run_until_complete(self.later.drop_all())

    async def append(self, talk: str, names: list[str], *, create: bool) -> str:
        items = [(name, said(name)) for name in names]
        new: dict[str, Any] = {"created_at": 1, "metadata": b"{}"} if create else {}
        limit = self.stores.settings.queue_limit
        redis = self.connections.redis

        def attempt() -> Awaitable[changes.Changed]:
            return changes.append(redis, self.tenant, talk, items, limit, **new)

        return (await change(self.connections, self.tenant, talk, attempt)).reason

    async def begin(self, talk: str = "", previous: str = "") -> tuple[Turn, list[str]]:
        """A turn, and the names in its history; without a conversation, in a thread behind a previous response."""
        number = next(numbers)
        response, token = f"resp_{number}", secrets.token_hex(8)
        start = {"id": response, "status": "in_progress", "created_at": 1}
        request = orjson.dumps({"response": start, "input": [], "stream": False})
        ids = self.tenant, response, token, f"thr_{number}"
        opening = Opening(*ids, request=request, conversation=talk, previous_response=previous)
        begun = await open_turn(self.connections, opening)
        return Turn(begun.thread, response, token), [reading.item_id(item) for item in begun.items]

    async def finish(self, turn: Turn, names: list[str]) -> str:
        """Without names, the turn has produced nothing."""
        verdict = COMPLETED if names else Verdict("failed")
        final = conclude({"id": turn.response, "created_at": 1}, verdict, None)
        inputs, output = [orjson.loads(said(name)) for name in names[:-1]], [{"id": name} for name in names[-1:]]
        ending = make_ending(turn.response, final, inputs, output, orjson.dumps(final), b"", 0)
        ids = self.tenant, turn.thread, turn.response, turn.token
        outcome, queued = await steps.finish(self.connections.lanes, *ids, ending)
        self.ring.keep(self.epochs, queued, Ended(self.tenant, turn.thread, turn.response, ending))
        return outcome

    async def read(self, talk: str) -> list[str]:
        page = await reading.conversation_items(self.connections, self.tenant, talk, None, MOST_ITEMS, "asc")
        return [item["id"] for item in orjson.loads(orjson.dumps(page["data"]))]

    async def read_response(self, response: str) -> str:
        """Its status."""
        return str(orjson.loads(await reading.response(self.connections, self.tenant, response))["status"])

    async def delete(self, talk: str) -> None:
        await deleting.delete_conversation(self.connections, self.tenant, talk)

    async def delete_item(self, talk: str, name: str) -> None:
        await deleting.delete_item(self.connections, self.tenant, talk, name)

    async def delete_response(self, response: str) -> None:
        await deleting.delete_response(self.connections, self.tenant, response)

    async def sweep(self) -> None:
        """Close what has lost its pod."""
        for tenant, response in await orphans.expired(self.connections.redis, MOST_ITEMS):
            await close_orphan(self.connections, tenant, response)


def said(name: str) -> bytes:
    return orjson.dumps({"id": name, "type": "message"})


@dataclass(slots=True)
class Held:
    """A range in a worker's hands; `stored` once PostgreSQL has it."""

    lease: Lease
    stored: Stored | None = None


class Worker(Process):
    """One session of PostgreSQL for all: their transactions never overlap."""

    async def claim(self, count: int) -> Held | None:
        lease = await queue.claim(self.stores.server.client, queue.new_token(), "-", count)
        if lease is None:
            return None
        self.epochs.saw(lease.epoch, lease.tail)
        return Held(lease)

    async def store(self, held: Held) -> None:
        held.stored = await store_range(self.stores.connection, held.lease)

    async def acknowledge(self, held: Held) -> None:
        assert held.stored is not None
        await queue.ack(self.stores.server.client, held.lease, held.stored, self.stores.settings.expiration_seconds)

    async def give_back(self, held: Held) -> None:
        lease = held.lease
        if not await queue.release(self.stores.server.client, lease, ended=True, failed=False):
            await self.epochs.recover(lease.told, lease.start, nothing_shown)
