"""A campaign without a plan: processes and servers die, stop and come back in an order that the seed decides."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from tests.chaos.faults_hot import evict
from tests.chaos.gate import Gate
from tests.chaos.judge import Report, judge
from tests.chaos.stage import Needs, Pod, Stage, stage_on
from tests.chaos.users import load
from tests.running import Part, Postgres

# One world lasts this long, so that a broken promise is found near its cause.
ROUND_SECONDS = 60.0
USERS = 8
# Longer than a socket's time-out and shorter than a lock, or so long that a lease and a lock run out.
SHORT_STOP_SECONDS, LONG_STOP_SECONDS = (0.2, 4.0), (16.0, 20.0)
LONG_STOP_SHARE = 0.1
BETWEEN_SECONDS = (0.2, 3.0)
FSYNC_SECONDS = (0.0, 0.01, 0.1)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class World:
    stage: Stage
    apis: list[Pod]
    workers: list[Pod]
    gates: list[Gate]
    """Every way between a process and a store leads through one."""


async def walk(shared: Postgres, seed: int, number: int, *, debian: bool, seconds: float, tell: Tell) -> Report:
    """One round. The same seed and number strike in the same order, though what they hit is the moment's affair."""
    rng = random.Random(f"{seed} {number}")  # noqa: S311 - nothing secret
    needs = Needs(own_postgres=True, debian=debian, shim=debian)
    async with stage_on(shared, needs, items=0, large=True, seed=seed) as stage:
        world = World(stage, [], [], [])
        for _ in range(2):
            world.apis.append(await stage.api(**await _gated(world)))
            world.workers.append(await stage.worker(**await _gated(world)))
        async with load(stage, *world.apis, users=USERS) as users:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(rng.uniform(*BETWEEN_SECONDS))
                told = await rng.choice(STRIKES)(rng, world)
                tell(f"{told}; {stage.ledger.acknowledged} items acknowledged")
            if stage.shim is not None:
                stage.shim.slow_fsync(0)
            stage.fault_ended_at = time.monotonic()
            await users.more(1)
        return await judge(stage, world.apis[0])


async def _gated(world: World) -> dict[str, str]:
    redis, postgres = await world.stage.redis_gate(), await world.stage.postgres_gate()
    world.gates.extend((redis, postgres))
    return {"REDIS_PORT": str(redis.port), "PG_PORT": str(postgres.port)}


async def _strike_a_process(rng: random.Random, world: World) -> str:
    target: Part
    name, target = rng.choice(
        [
            ("an API", rng.choice(world.apis)),
            ("a worker", rng.choice(world.workers)),
            ("Redis", world.stage.valkey),
            ("PostgreSQL", world.stage.postgres),
        ]
    )
    strike: Callable[[random.Random, Part], Awaitable[str]] = rng.choice([_kill, _stop, _terminate])
    if name == "PostgreSQL" and strike is _stop:
        strike = _kill  # SIGSTOP would reach its first process alone, which does not do the work
    return f"{name} {await strike(rng, target)}"


async def _cut_connections(rng: random.Random, world: World) -> str:
    cut = sum(gate.cut() for gate in rng.sample(world.gates, rng.randint(1, len(world.gates))))
    return f"{cut} connections cut"


async def _evict(rng: random.Random, world: World) -> str:
    """As at `maxmemory`: what has a time to live may go at any moment, key by key."""
    share, redis = rng.uniform(0.1, 1), world.stage.redis
    try:
        gone = sum([await evict(world.stage, key) async for key in redis.scan_iter("[ci]*:*") if rng.random() < share])
    except (RedisError, OSError):
        return "nothing evicted, Redis is away"
    return f"{gone} hot keys evicted"


async def _slow_disk(rng: random.Random, world: World) -> str:
    if world.stage.shim is None:
        return await _evict(rng, world)
    seconds = rng.choice(FSYNC_SECONDS)
    world.stage.shim.slow_fsync(seconds)
    return f"Redis's disk takes {seconds * 1000:.0f} ms more per sync"


STRIKES: list[Callable[[random.Random, World], Awaitable[str]]] = [
    *[_strike_a_process] * 4,
    _cut_connections,
    _evict,
    _slow_disk,
]


async def _kill(rng: random.Random, target: Part) -> str:
    await target.kill()
    away = _away(rng)
    await asyncio.sleep(away)
    await target.start()
    return f"killed, and started after {away:.1f} s"


async def _stop(rng: random.Random, target: Part) -> str:
    target.pause()
    away = _away(rng)
    await asyncio.sleep(away)
    target.resume()
    return f"stopped for {away:.1f} s"


async def _terminate(_: random.Random, target: Part) -> str:
    status = await target.terminate()
    await target.start()
    return f"told to end (status {status}), and started"


def _away(rng: random.Random) -> float:
    return rng.uniform(*(LONG_STOP_SECONDS if rng.random() < LONG_STOP_SHARE else SHORT_STOP_SECONDS))
