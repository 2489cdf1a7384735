"""What every panel of every dashboard shows, asked from a real Prometheus."""

import contextlib
import math
from dataclasses import dataclass

from chart.monitoring import (
    CHOSEN,
    DASHBOARDS,
    FOREIGN,
    Json,
    Panel,
    chosen,
    constants_of,
    dashboard_of,
    metrics_in,
    panels_of,
)

from tests.drill.prometheus import Prometheus
from tests.waiting import wait_until

SHOWN_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One query of a panel, as it was asked, and its samples."""

    panel: Panel
    legend: str
    expression: str
    samples: list[Json]

    @property
    def numbers(self) -> list[float]:
        values = [float(sample["value"][1]) for sample in self.samples]
        return [value for value in values if not math.isnan(value)]

    @property
    def is_foreign(self) -> bool:
        """Whether a cluster tells it, and none of our processes."""
        return any(name.startswith(FOREIGN) for name in metrics_in(self.expression))


async def ask_panels(prometheus: Prometheus) -> list[Shown]:
    """Fails with Prometheus's words when an expression is wrong."""
    shown = []
    for path in DASHBOARDS:
        values = {**CHOSEN, **constants_of(dashboard_of(path)), "model": ".*"}
        for panel in panels_of(path):
            for target in panel.body["targets"]:
                expression = chosen(target["expr"], values)
                samples = await prometheus.query(expression)
                shown.append(Shown(panel, target["legendFormat"], expression, samples))
    return shown


async def shown_under_load(prometheus: Prometheus) -> list[Shown]:
    """As soon as every panel has a value; after a while as they are."""
    last: list[Shown] = []

    async def all_have_values() -> bool:
        last[:] = await ask_panels(prometheus)
        return all(one.numbers for one in last)

    with contextlib.suppress(AssertionError):  # who asks tells which have none
        await wait_until(all_have_values, "a value in every panel", SHOWN_SECONDS)
    return last


def table_of(shown: list[Shown]) -> list[str]:
    """A row for each query, as docs/observability.md has them."""
    rows = ["| dashboard | panel | line | value | unit |", "|---|---|---|---|---|"]
    for one in shown:
        unit = one.panel.body["fieldConfig"]["defaults"]["unit"]
        value = f"{max(one.numbers):.4g}" if one.numbers else "no data"
        more = f" (the highest of {len(one.numbers)})" if len(one.numbers) > 1 else ""
        legend = f"`{one.legend}`" if one.legend else ""
        rows.append(f"| {one.panel.dashboard} | {one.panel.title} | {legend} | {value}{more} | {unit} |")
    return rows
