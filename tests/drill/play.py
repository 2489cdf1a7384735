"""Play a fault and see its alerts fire, and end when it is mended."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from tests.drill.faults import Fault
from tests.drill.prometheus import Cluster, Prometheus
from tests.drill.stage import Place
from tests.waiting import wait_until

FIRED_SECONDS = 90.0
ENDED_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Played:
    alert: str
    fault: str
    fired_seconds: float
    ended_seconds: float


async def play(fault: Fault, place: Place, prometheus: Prometheus, cluster: Cluster) -> list[Played]:
    """Fails with what has not fired, or not ended."""
    alerts = {(place.namespace, alert) for alert in fault.alerts}

    async def none_fires() -> bool:
        return not alerts & await prometheus.firing()

    await wait_until(none_fires, f"{alerts} to be quiet before the fault", ENDED_SECONDS)
    began = time.monotonic()
    async with fault.cause(place, cluster):
        fired = await _watch(alerts, prometheus, firing=True, seconds=FIRED_SECONDS)
        mended = time.monotonic()
    ended = await _watch(alerts, prometheus, firing=False, seconds=ENDED_SECONDS)
    names = [(place.namespace, alert) for alert in fault.alerts]
    return [Played(one[1], fault.words, fired[one] - began, ended[one] - mended) for one in names]


async def _watch(
    alerts: set[tuple[str, str]], prometheus: Prometheus, *, firing: bool, seconds: float
) -> dict[tuple[str, str], float]:
    """When each of them was first seen firing, or was seen for good not to fire."""
    seen: dict[tuple[str, str], float] = {}

    async def all_seen() -> bool:
        now = await prometheus.firing()
        for alert in alerts:
            if (alert in now) is firing:
                seen.setdefault(alert, time.monotonic())
            elif not firing:
                seen.pop(alert, None)
        return len(seen) == len(alerts)

    await wait_until(all_seen, f"{alerts} to {'fire' if firing else 'end'}", seconds)
    return seen


def table_of(played: Iterable[Played]) -> list[str]:
    """A row for each alert, as docs/observability.md has them."""
    head = ["| alert | fault | fired after, s | ended after, s |", "|---|---|---|---|"]
    return head + [
        f"| `{one.alert}` | {one.fault} | {one.fired_seconds:.0f} | {one.ended_seconds:.0f} |" for one in played
    ]
