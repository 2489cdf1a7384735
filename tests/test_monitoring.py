"""The chart's dashboards and alerts on a real Prometheus that scrapes the real processes.

`make alerts` makes every alert fire and end by its fault; here two of them do.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from chart.monitoring import FOREIGN, PROMETHEUS, RECORDED, RULES, all_alerts, all_panels, all_rules, metrics_in
from redis.asyncio import Redis

from tests.conftest import StartService
from tests.drill.faults import FAULTS, migration_failed, worker_stopped
from tests.drill.hurried import hurried_expression, hurry
from tests.drill.load import everything, two_providers
from tests.drill.panels import Shown, shown_under_load
from tests.drill.play import play
from tests.drill.prometheus import Cluster, Prometheus, targets_of
from tests.drill.stage import Place, watched
from tests.running import Part, Postgres, Service

pytestmark = pytest.mark.anyio

NAMESPACE = "chat"
ALL_FAULTS = [fault for faults in FAULTS.values() for fault in faults]
Watch = tuple[Prometheus, Cluster]


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part, folder: Path) -> Service:
    return await start_service(**two_providers(folder / "settings", upstream))


@pytest.fixture(scope="module")
async def watch(service: Service, folder: Path) -> AsyncIterator[Watch]:
    async with watched(folder / "prometheus", targets_of(NAMESPACE, service), NAMESPACE) as both:
        yield both


@pytest.fixture(scope="module")
async def shown(watch: Watch, service: Service, valkey: Part) -> list[Shown]:
    """Every query of every panel, asked under load."""
    async with Redis(host=valkey.host, port=valkey.port) as redis, everything(service, redis):
        return await shown_under_load(watch[0])


async def test_every_panel_has_a_value(shown: list[Shown]) -> None:
    assert [f"{one.panel.dashboard}: {one.expression}" for one in shown if not one.numbers] == []


@pytest.mark.usefixtures("shown")
async def test_every_metric_that_is_named_is_scraped(watch: Watch) -> None:
    """Those of kube-state-metrics and KEDA are told by a stand-in under their real names."""
    prometheus, _ = watch
    asked = [text for panel in all_panels() for text in panel.expressions] + [rule.expression for rule in all_rules()]
    named = {name for text in asked for name in metrics_in(text) if not name.startswith((RECORDED, *PROMETHEUS))}
    foreign = {name for name in named if name.startswith(FOREIGN)}
    assert named - foreign - await prometheus.names("api", "worker") == set()
    assert foreign - await prometheus.names("cluster") == set()


@pytest.mark.parametrize("cause", [worker_stopped, migration_failed])
@pytest.mark.usefixtures("shown")
async def test_an_alert_fires_by_its_fault_and_ends_after_it(
    cause: object, watch: Watch, service: Service, valkey: Part, postgres: Postgres, upstream: Part, redis: Redis
) -> None:
    (fault,) = (fault for fault in ALL_FAULTS if fault.cause is cause)
    place = Place(NAMESPACE, service, valkey, postgres, upstream, redis)
    async with everything(service, redis):
        played = await play(fault, place, *watch)
    assert [one.alert for one in played] == list(fault.alerts)


def test_every_alert_has_a_fault_that_raises_it() -> None:
    raised = [alert for fault in ALL_FAULTS for alert in fault.alerts]
    assert sorted(raised) == sorted(alert.name for alert in all_alerts())


@pytest.mark.parametrize(
    ("expression", "hurried"),
    [
        ("rate(a_rate5m[3d]) > 14.4 * 0.001", "rate(a_rate5m[432s]) > 14.4 * 0.001"),
        ("deriv(a[15m]) > 0 and b_seconds > 1200", "deriv(a[12s]) > 0 and b_seconds > 2"),
        ('b_seconds_count{le="5.0"} > 300 or a offset 6h', 'b_seconds_count{le="5.0"} > 300 or a offset 36s'),
        ("b_seconds > 60", "b_seconds > 1"),
    ],
)
def test_what_a_hurried_expression_is(expression: str, hurried: str) -> None:
    assert hurried_expression(expression) == hurried


def test_a_hurried_file_differs_in_times_alone() -> None:
    for path in RULES:
        text = path.read_text(encoding="utf-8")
        plain, hurried = yaml.safe_load(text), hurry(yaml.safe_load(text))
        for before, after in zip(plain["groups"][0]["rules"], hurried["groups"][0]["rules"], strict=True):
            assert before.keys() == after.keys()
            changed = {key for key in before if before[key] != after[key]}
            assert changed <= {"expr", "for"}
