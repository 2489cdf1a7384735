"""Every metric as the constants have it, in the form of the tables of docs/observability.md."""

from types import ModuleType

from prometheus_client import Info
from prometheus_client.metrics import MetricWrapperBase

import api.metrics
import core.metrics
import worker.metrics

SUFFIXES = {"counter": "_total", "info": "_info"}
PROCESSES: dict[str, ModuleType] = {
    "Both processes": core.metrics,
    "The API": api.metrics,
    "The worker": worker.metrics,
}


def constants(module: ModuleType) -> list[MetricWrapperBase]:
    found: dict[str, MetricWrapperBase] = {}
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, MetricWrapperBase):
            # Behind a metric with labels there may be constants for some of their values.
            (described,) = value.describe()
            found.setdefault(described.name, value)
    return list(found.values())


def scraped_name(metric: MetricWrapperBase) -> str:
    """What a query calls it; a histogram's is followed by `_bucket`, `_count`, `_sum`."""
    (described,) = metric.describe()
    return described.name + SUFFIXES.get(described.type, "")


def row(metric: MetricWrapperBase) -> str:
    (described,) = metric.describe()
    labels = ("component", "python", "version") if isinstance(metric, Info) else vars(metric)["_labelnames"]
    told = ", ".join(f"`{label}`" for label in labels)
    return f"| `{scraped_name(metric)}` | {described.type} | {told} | {described.documentation} |"


def table(module: ModuleType) -> str:
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *map(row, constants(module))])
