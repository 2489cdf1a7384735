"""Where a fault takes place: servers and processes of its own, each at an address that a gate may stand before."""

import asyncio
import itertools
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import asyncpg
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.queue import LEASES, QUEUE, REPORTS, SOCKET_TIMEOUT_SECONDS
from local.children import HOST, free_port
from local.embedded import PLAIN_ENVIRONMENT, VALKEY_SERVER, VALKEY_SETTINGS, start_valkey
from local.parts import migrate, spawn_module, start_module
from tests.chaos.gate import Gate, gate_to
from tests.chaos.said import Ledger
from tests.chaos.scene import Address, Json
from tests.chaos.shim import Shim, make_shim
from tests.fake_upstream import fake_upstream_in
from tests.running import Folder, Part, Postgres, postgres_in, run_worker, service_on
from tests.waiting import wait_until

# A whole takeover: the lease of 15 s, the idle worker's next look, and a busy machine.
TAKEOVER_SECONDS = 30.0
DRAIN_SECONDS = 90.0
HELD_SECONDS = 20.0
REQUEST_SECONDS = 90.0
# Until every process has found a Redis that was started, and settled its epoch.
SETTLED_SECONDS = 3
# The name of the sessions that write ranges, as PostgreSQL is told it.
STORING = b"chatbot-worker\0"
DEBIAN_REDIS = "redis-server"


class NoRedisError(Exception):
    """A fault needs Debian's redis-server, and there is none: apt-get install redis-server."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a fault needs of its stores, and of the tree that its processes come from."""

    migrated: bool = True
    """The schema is there from the start."""
    own_postgres: bool = False
    """It kills PostgreSQL."""
    debian: bool = False
    """Debian's Redis in place of the embedded Valkey."""
    shim: bool = False
    """The same with knobs for its disk and its clock."""
    redis_settings: tuple[tuple[str, str], ...] = ()
    """Beside those of production."""
    code: Path | None = None
    """Where our processes' code is, when it is not this tree's."""


@dataclass
class Pod(Part):
    """An API or a worker process; `metrics_port` answers /metrics."""

    metrics_port: int = 0

    @property
    def is_api(self) -> bool:
        """A worker answers at one port alone."""
        return self.port != self.metrics_port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"


@dataclass
class Stage:
    """One fault's world. `items`: how many shall be acknowledged before it ends."""

    postgres: Postgres
    database: str
    valkey: Part
    folder: Path
    redis: Redis
    http: aiohttp.ClientSession
    stack: AsyncExitStack
    items: int
    large: bool
    random: random.Random
    redis_settings: dict[str, str]
    """A change counts from Redis's next start on."""
    shim: Shim | None = None
    code: Path | None = None
    ledger: Ledger = field(default_factory=Ledger)
    pods: list[Pod] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    seen: dict[str, object] = field(default_factory=dict)
    """What a fault noticed of itself, for the report."""
    dead_expected: int = 0
    lost_expected: int = 0
    """Entries that Redis took with it and nobody remembered."""
    fault_ended_at: float = 0.0
    recovery_seconds: float = 0.0
    """From the fault's end until a turn was acknowledged and all was stored; 0 until somebody measured it."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _upstream: Part | None = None

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        settings = {"MODEL": "echo", "LOG_LEVEL": "INFO", **settings}
        return service_on(self.valkey, self.postgres, self.database, self.folder, **settings).environment

    async def api(self, **settings: str) -> Pod:
        """Start an API process; `settings` are its own, e.g. REDIS_PORT of a gate."""
        return await self._start("api", "PORT", "METRICS_PORT", settings)

    async def worker(self, **settings: str) -> Pod:
        return await self._start("worker", "HEALTH_PORT", "HEALTH_PORT", settings)

    async def unready_worker(self) -> Pod:
        """A worker that can't get ready yet, so nobody waits for it."""
        environment, logs = self._environment({}), self.folder / f"worker-{next(self._numbers)}"
        port = int(environment["HEALTH_PORT"])
        start = lambda: spawn_module("worker", environment, logs, self.code)  # noqa: E731 - as for the others
        return await self._run(Pod(port, start, metrics_port=port))

    async def _start(self, module: str, port_name: str, metrics_name: str, settings: dict[str, str]) -> Pod:
        environment, logs = self._environment(settings), self.folder / f"{module}-{next(self._numbers)}"
        port, metrics_port = int(environment[port_name]), int(environment[metrics_name])
        return await self._run(
            Pod(port, lambda: start_module(module, environment, logs, port, self.code), metrics_port=metrics_port)
        )

    async def _run(self, pod: Pod) -> Pod:
        self.pods.append(pod)
        self.stack.push_async_callback(pod.close)
        await pod.start()
        return pod

    async def upstream(self) -> Part:
        """The fake model provider, started with the first call."""
        if self._upstream is None:
            self._upstream = fake_upstream_in(self.folder / "upstream")
            self.stack.push_async_callback(self._upstream.close)
            await self._upstream.start()
        return self._upstream

    async def asking(self) -> dict[str, str]:
        """Settings of an API whose models are the fake upstream's."""
        port = (await self.upstream()).port
        return {"OPENAI_BASE_URL": f"http://{HOST}:{port}/v1", "OPENAI_API_KEY": "sk-test", "MODEL": "fake"}

    async def redis_gate(self) -> Gate:
        return await self._gate(self.valkey.port, b"")

    async def postgres_gate(self) -> Gate:
        """Its rules catch what stores the queue, not what indexes it later, nor an API."""
        return await self._gate(self.postgres.port, STORING)

    async def _gate(self, port: int, only: bytes) -> Gate:
        self.gates.append(await self.stack.enter_async_context(gate_to(port, only)))
        return self.gates[-1]

    async def migrate(self) -> None:
        await migrate(self._environment({}), self.folder / "migrate")

    @asynccontextmanager
    async def sql(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        server = self.postgres
        connection = await asyncpg.connect(host=server.host, port=server.port, user=server.user, database=self.database)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    async def depth(self) -> int:
        return int(await self.redis.llen(QUEUE))

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        async def empty() -> bool:
            return await self.depth() == 0

        await wait_until(empty, "the queue to drain", seconds)

    async def leases(self) -> int:
        return int(await self.redis.zcard(LEASES))

    async def let_leases_end(self, *, hurried: bool = False) -> None:
        """In the short variant as if their holders had not been heard of for the whole lease; else they really end."""
        if hurried or not self.large:
            for member in cast("list[bytes]", await self.redis.zrange(LEASES, 0, -1)):
                await self.redis.zadd(LEASES, {member: 1}, xx=True)

    async def lost_entries(self) -> int:
        """What the operator is told to be lost with Redis, once every report of it is in PostgreSQL."""

        async def reported() -> bool:
            return not await self.redis.exists(REPORTS)

        await wait_until(reported, "reports of ended epochs to reach PostgreSQL")
        status, output, errors = await run_worker(self._environment({}), "queue", "status", "--json")
        assert status == 0, errors
        entries: int = orjson.loads(output)["lost_entries"]
        return entries

    @property
    def knobs(self) -> Shim:
        assert self.shim is not None, "this fault did not ask for the shim"
        return self.shim

    @property
    def redis_data(self) -> Path:
        return self.folder / "valkey"

    async def calm(self) -> tuple[str, int] | None:
        """Which run of Redis answers, and how often connections were cut; None soon after its start, or without one."""
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
                # One that still loads its data answers INFO, and nothing else.
                await self.redis.ping()
                server = await self.redis.info("server")
        except (RedisError, OSError, TimeoutError):
            return None
        if server["uptime_in_seconds"] < SETTLED_SECONDS:
            return None
        return server["run_id"], sum(gate.cuts for gate in self.gates)

    async def restart_redis(self) -> None:
        """As after a power cut, but for the disk, which keeps what was written."""
        await self.valkey.kill()
        await self.valkey.start()

    async def wipe_redis(self) -> None:
        """It comes back on a new volume."""
        await self.valkey.kill()
        shutil.rmtree(self.redis_data)
        await self.valkey.start()

    async def dead_letters(self) -> list[tuple[str, bytes]]:
        """(reason, entry) each."""
        async with self.sql() as connection:
            rows = await connection.fetch("SELECT reason, entry FROM dead_letters ORDER BY id")
        return [(row["reason"], row["entry"]) for row in rows]

    async def metric(self, pod: Pod, name: str) -> float:
        """The sum over all labels; 0 when the process does not have it."""
        async with self.http.get(f"http://{HOST}:{pod.metrics_port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    async def call(self, method: str, url: str, body: Json | None = None, key: str = "") -> tuple[int, Json]:
        """(status, answer); raises aiohttp.ClientError or TimeoutError when there was none."""
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        sent = None if body is None else orjson.dumps(body)
        async with self.http.request(method, url, data=sent, headers=headers) as answer:
            raw = await answer.read()
        value: Json = orjson.loads(raw)
        return answer.status, value

    async def post(self, pod: Address, path: str, body: Json, key: str = "") -> tuple[int, Json]:
        return await self.call("POST", f"{pod.url}/{path}", body, key)


async def held(*events: asyncio.Event) -> None:
    """Wait until the gates hold what they were told to."""
    for event in events:
        await wait_until(event.is_set, "a gate to hold", HELD_SECONDS)


@asynccontextmanager
async def stage_on(shared: Postgres, needs: Needs, *, items: int, large: bool, seed: int) -> AsyncIterator[Stage]:
    """Servers with production's settings, gone at the end."""
    folder = Folder()
    async with AsyncExitStack() as stack:
        stack.callback(folder.remove)
        postgres = shared
        if needs.own_postgres:
            postgres = postgres_in(folder.path)
            stack.push_async_callback(postgres.close)
            await postgres.start()
        shim = await make_shim(folder.path / "shim") if needs.shim else None
        settings = {**VALKEY_SETTINGS, **dict(needs.redis_settings)}
        valkey = _redis_in(folder.path, settings, shim, debian=needs.debian or needs.shim)
        stack.push_async_callback(valkey.close)
        database, _ = await asyncio.gather(postgres.new_database(), valkey.start())
        redis = await stack.enter_async_context(Redis(host=HOST, port=valkey.port))
        connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=patience, connector=connector))
        rng = random.Random(seed)  # noqa: S311 - nothing secret
        world = (postgres, database, valkey, folder.path, redis, http, stack, items, large, rng)
        stage = Stage(*world, settings, shim, needs.code)
        if needs.migrated:
            await stage.migrate()
        yield stage


def _redis_in(folder: Path, settings: dict[str, str], shim: Shim | None, *, debian: bool) -> Part:
    found = shutil.which(DEBIAN_REDIS) if debian else str(VALKEY_SERVER)
    if found is None:
        raise NoRedisError
    environment = {**PLAIN_ENVIRONMENT, **(shim.environment if shim else {})}
    port = free_port()
    return Part(port, lambda: start_valkey(folder / "valkey", folder, port, Path(found), settings, environment))


Fault = Callable[[Stage], Awaitable[None]]
