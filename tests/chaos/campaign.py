"""One fault from its stage to its report."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos import (  # noqa: F401 - they fill the registry
    faults_api,
    faults_hot,
    faults_loss,
    faults_postgres,
    faults_redis,
    faults_turns,
    faults_ways,
    faults_worker,
)
from tests.chaos.judge import Report, judge
from tests.chaos.registry import Entry
from tests.chaos.stage import stage_on
from tests.running import Postgres


@dataclass(frozen=True, slots=True)
class Outcome:
    report: Report
    seconds: float
    seen: dict[str, object]
    """What the fault noticed of itself, e.g. how many rows were found to be stored already."""


async def carry_out(
    entry: Entry,
    shared: Postgres,
    *,
    items: int,
    large: bool,
    seed: int,
    debian: bool = False,
    code: Path | None = None,
) -> Outcome:
    """Raises AssertionError when the fault did not happen as it should; broken promises are in the report.

    `debian`: on Debian's Redis also where Valkey would do. `code`: with the processes of another tree.
    """
    began = time.monotonic()
    needs = replace(entry.needs, debian=debian or entry.needs.debian, code=code)
    async with stage_on(shared, needs, items=items, large=large, seed=seed) as stage:
        await entry.run(stage)
        api = next(pod for pod in stage.pods if pod.is_api and pod.child.running)
        report = await judge(stage, api)
        return Outcome(report, round(time.monotonic() - began, 1), stage.seen)
