"""The API with metrics that count nothing: what it is compared with to see what they cost."""

import runpy

from prometheus_client import Counter, Gauge, Histogram


def nothing(*_: object) -> None:
    """In the place of whatever counts."""


for metric, methods in ((Counter, ("inc",)), (Gauge, ("inc", "dec", "set")), (Histogram, ("observe",))):
    for method in methods:
        setattr(metric, method, nothing)

if __name__ == "__main__":
    runpy.run_module("api", run_name="__main__", alter_sys=True)
