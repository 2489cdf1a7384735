"""A campaign without a plan: processes and servers die, stop and come back in an order that the seed decides."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tests.chaos.judge import Report, judge
from tests.chaos.stage import Needs, Pod, Stage, stage_on
from tests.chaos.users import Load, load
from tests.running import Part, Postgres

# One world lasts this long, so that a broken promise is found near its cause.
ROUND_SECONDS = 60.0
USERS = 8
# Longer than a socket's time-out and shorter than a lock, or so long that a lease and a lock run out.
SHORT_STOP_SECONDS, LONG_STOP_SECONDS = (0.2, 4.0), (16.0, 20.0)
LONG_STOP_SHARE = 0.1
BETWEEN_SECONDS = (0.2, 3.0)

Tell = Callable[[str], None]


async def walk(shared: Postgres, seed: int, number: int, *, debian: bool, seconds: float, tell: Tell) -> Report:
    """One round. The same seed and number strike in the same order, though what they hit is the moment's affair."""
    rng = random.Random(f"{seed} {number}")  # noqa: S311 - nothing secret
    needs = Needs(own_postgres=True, debian=debian)
    async with stage_on(shared, needs, items=0, large=True, seed=seed) as stage:
        apis = [await stage.api() for _ in range(2)]
        workers = [await stage.worker() for _ in range(2)]
        async with load(stage, *apis, users=USERS) as users:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(rng.uniform(*BETWEEN_SECONDS))
                await _strike(rng, stage, users, apis, workers, tell)
            stage.fault_ended_at = time.monotonic()
            await users.more(1)
        return await judge(stage, apis[0])


async def _strike(
    rng: random.Random, stage: Stage, users: Load, apis: list[Pod], workers: list[Pod], tell: Tell
) -> None:
    target: Part
    name, target = rng.choice(
        [
            ("an API", rng.choice(apis)),
            ("a worker", rng.choice(workers)),
            ("Redis", stage.valkey),
            ("PostgreSQL", stage.postgres),
        ]
    )
    strike: Callable[[random.Random, Part], Awaitable[str]] = rng.choice([_kill, _stop, _terminate])
    if name == "PostgreSQL" and strike is _stop:
        strike = _kill  # SIGSTOP would reach its first process alone, which does not do the work
    tell(f"{name} {await strike(rng, target)}; {users.stage.ledger.acknowledged} items acknowledged")


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
