"""`python -m tests.chaos`: play faults against the real service and report what became of what was acknowledged.

Without --fault or --seconds every fault is played once. --seconds plays a random campaign for so long instead.
"""

import argparse
import asyncio
import dataclasses
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import orjson
from aiohttp import ClientError
from redis.exceptions import RedisError

from tests.chaos.campaign import carry_out
from tests.chaos.judge import Report
from tests.chaos.random_walk import ROUND_SECONDS, walk
from tests.chaos.registry import FAULTS, LARGE_ITEMS, Entry
from tests.running import Folder, Postgres, postgres_in

COLUMNS = ("operations", "acknowledged", "lost", "doubled", "misordered", "redelivered", "recovered in")


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.list:
        for number, entry in sorted(FAULTS.items()):
            sys.stdout.write(f"{number:3}  {entry.name}\n")
        return 0
    if arguments.fault is not None and arguments.fault not in FAULTS:
        sys.stderr.write(f"there is no fault {arguments.fault}; --list tells them\n")
        return 2
    return asyncio.run(_run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--fault", type=int, help="play this one; --list tells their numbers")
    parser.add_argument("--seconds", type=float, help="play a random campaign for so long")
    parser.add_argument("--seed", type=int, help="of what is random; printed, so that a campaign can be played again")
    parser.add_argument("--items", type=int, default=LARGE_ITEMS, help="to be acknowledged per fault (%(default)s)")
    parser.add_argument(
        "--redis", choices=("valkey", "redis"), default="valkey", help="redis: Debian's, also where Valkey would do"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per fault")
    parser.add_argument("--list", action="store_true", help="name all faults")
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    _say(f"seed {seed} (SEED={seed} plays the same again)")
    async with _postgres() as shared:
        if arguments.seconds:
            return await _campaign(arguments, shared, seed)
        chosen = [FAULTS[arguments.fault]] if arguments.fault else [FAULTS[number] for number in sorted(FAULTS)]
        results = [await _fault(arguments, shared, entry, seed) for entry in chosen]
    _say(f"{sum(acknowledged for acknowledged, _ in results)} items acknowledged in all")
    broken = [entry.name for entry, (_, sound) in zip(chosen, results, strict=True) if not sound]
    for name in broken:
        _say(f"BROKEN: {name}")
    return 1 if broken else 0


async def _fault(arguments: argparse.Namespace, shared: Postgres, entry: Entry, seed: int) -> tuple[int, bool]:
    """(acknowledged items, whether every promise was kept)."""
    _say(f"{entry.number:2} {entry.name} ...")
    debian = arguments.redis == "redis"
    try:
        outcome = await carry_out(entry, shared, items=arguments.items, large=True, seed=seed, debian=debian)
    except (AssertionError, ClientError, asyncpg.PostgresError, RedisError, OSError, TimeoutError) as error:
        _say(f"   did not come about as it should: {type(error).__name__}: {error}")
        return 0, False
    report = outcome.report
    sound = report.sound and report.recovery_seconds < entry.within_seconds
    _tell(arguments, f"{entry.number:2} {entry.name}", report, {"fault": entry.number, "seen": outcome.seen})
    if report.recovery_seconds >= entry.within_seconds:
        _say(f"   recovered only after {report.recovery_seconds:.1f} s, allowed are {entry.within_seconds:.0f}")
    return report.acknowledged, sound


async def _campaign(arguments: argparse.Namespace, shared: Postgres, seed: int) -> int:
    """Rounds on Valkey and on Debian's Redis by turns, until the time is over."""
    end, number, acknowledged, sound = time.monotonic() + arguments.seconds, 0, 0, True
    while time.monotonic() < end:
        number += 1
        seconds = min(ROUND_SECONDS, max(5.0, end - time.monotonic()))
        debian = arguments.redis == "redis" or number % 2 == 0
        report = await walk(shared, seed, number, debian=debian, seconds=seconds, tell=lambda text: _say(f"   {text}"))
        _tell(
            arguments, f"round {number} on {'Redis' if debian else 'Valkey'}", report, {"round": number, "seed": seed}
        )
        acknowledged += report.acknowledged
        sound = sound and report.sound
    _say(f"{acknowledged} items acknowledged in {number} rounds, seed {seed}")
    return 0 if sound else 1


def _tell(arguments: argparse.Namespace, name: str, report: Report, more: dict[str, object]) -> None:
    damage = report.damage
    counts = (
        report.operations,
        report.acknowledged,
        len(damage.lost),
        len(damage.doubled),
        len(damage.misordered),
        report.redelivered,
        f"{report.recovery_seconds:.1f} s",
    )
    if arguments.json:
        sys.stdout.write(orjson.dumps({"name": name, **more, **dataclasses.asdict(report)}).decode() + "\n")
        sys.stdout.flush()
    _say(f"   {name}: " + ", ".join(f"{column} {count}" for column, count in zip(COLUMNS, counts, strict=True)))
    for complaint in [*report.complaints, *damage.resurrected, *damage.torn][:5]:
        _say(f"   {complaint}")


def _say(text: str) -> None:
    """Progress goes to the person at the terminal, JSON alone to who reads it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@asynccontextmanager
async def _postgres() -> AsyncIterator[Postgres]:
    """One for all faults that leave it alone."""
    home = Folder()
    server = postgres_in(home.path)
    try:
        await server.start()
        yield server
    finally:
        await server.close()
        home.remove()


if __name__ == "__main__":
    sys.exit(main())
