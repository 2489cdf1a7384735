"""NetworkPolicies: what the service needs goes through, and nothing else does; metrics are read where they may be."""

import asyncio
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.check import visit
from cluster.conftest import NewNamespace
from cluster.images import Images
from cluster.pods import PROBE_PORT, Probe, probe_in, start_probe
from cluster.release import Release
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

API, API_METRICS, WORKER_HEALTH, REDIS, POSTGRESQL = 4000, 9090, 9091, 6379, 5432
ENFORCED_SECONDS = 20.0
DNS_ALONE_NAME = "dns-alone"
# Nothing but the look-up of names.
DNS_ALONE = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": DNS_ALONE_NAME},
    "spec": {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}],
    },
}


@dataclass(frozen=True, slots=True)
class Probes:
    neighbour: Probe
    """In the release's namespace, with no label of it."""
    stranger: Probe
    """In another namespace."""
    monitoring: Probe
    """Where Prometheus is."""

    @property
    def all(self) -> tuple[Probe, ...]:
        return self.neighbour, self.stranger, self.monitoring


@pytest.fixture(scope="module")
async def probes(main: Release, new_namespace: NewNamespace, images: Images) -> Probes:
    strange, monitoring = await new_namespace("strange"), await new_namespace("monitoring")
    await main.become({"networkPolicy": {"monitoringNamespace": monitoring.name}})
    found = Probes(
        await start_probe(main.namespace, "neighbour", images.api),
        await start_probe(strange, "stranger", images.api),
        await start_probe(monitoring, "prometheus", images.api),
    )
    if not await _enforced(found.stranger, host_of(main, "api")):
        pytest.skip("!!! NOTHING IS TESTED OF NETWORK POLICIES: this cluster does not enforce them")
    return found


async def _enforced(probe: Probe, host: str) -> bool:
    """Whether a policy without any rule for it cuts a pod off from what it reached before."""
    await wait_until(lambda: probe.reaches(host, API), "the API to be reached", ENFORCED_SECONDS)
    await probe.namespace.create_objects(DNS_ALONE)
    try:
        await wait_until(lambda: probe.is_cut_off(host, API), "a policy to be enforced", ENFORCED_SECONDS)
    except AssertionError:
        return False
    finally:
        await probe.namespace.delete_network_policy(DNS_ALONE_NAME)
    await wait_until(lambda: probe.reaches(host, API), "the API to be reached again", ENFORCED_SECONDS)
    return True


def host_of(release: Release, component: str) -> str:
    return f"{release.object_name(component)}.{release.namespace.name}"


async def probes_of(release: Release, component: str) -> list[Probe]:
    """The release's own pods as probes."""
    pods = await release.namespace.pods(component, selector=release.selector)
    assert pods, component
    return [probe_in(release.namespace, pod) for pod in pods]


async def expect(*ways: tuple[Probe, str, int], open_to_them: bool) -> None:
    """All at once, for each that is cut takes seconds to be known for it."""
    reached = await asyncio.gather(*(probe.reaches(host, port) for probe, host, port in ways))
    wrong = [way for way, was_reached in zip(ways, reached, strict=True) if was_reached is not open_to_them]
    assert not wrong, f"{'cut off' if open_to_them else 'open'}: {wrong}"


async def test_everybody_reaches_the_api(main: Release, probes: Probes) -> None:
    await expect(*((probe, host_of(main, "api"), API) for probe in probes.all), open_to_them=True)


async def test_a_store_is_reached_by_our_processes_alone(main: Release, probes: Probes) -> None:
    ours = [*await probes_of(main, "api"), *await probes_of(main, "worker")]
    for store, port in (("redis", REDIS), ("postgresql", POSTGRESQL)):
        (server,) = await probes_of(main, store)
        hosts = host_of(main, store), server.address
        await expect(*((probe, host, port) for probe in probes.all for host in hosts), open_to_them=False)
        await expect(*((probe, hosts[0], port) for probe in ours), open_to_them=True)


async def test_every_pods_metrics_are_for_the_monitoring_namespace(main: Release, probes: Probes) -> None:
    for component, port in (("api", API_METRICS), ("worker", WORKER_HEALTH)):
        pods = await probes_of(main, component)
        for pod in pods:
            text = await probes.monitoring.fetch(f"http://{pod.address}:{port}/metrics")
            names = [family.name for family in text_string_to_metric_families(text)]
            assert any(name.startswith("chatbot_") for name in names), names
        others = probes.neighbour, probes.stranger
        await expect(*((probe, pod.address, port) for probe in others for pod in pods), open_to_them=False)


async def test_our_pods_reach_nothing_that_they_do_not_need(main: Release, probes: Probes) -> None:
    """A pod that was taken over is no way to other pods."""
    components = ("api", "worker", "redis", "postgresql")
    ours = [pod for component in components for pod in await probes_of(main, component)]
    somebody = probes.stranger.address, PROBE_PORT
    await expect((probes.neighbour, *somebody), open_to_them=True)
    await expect(*((pod, *somebody) for pod in ours), open_to_them=False)


async def test_users_are_served_under_these_policies(main: Release, probes: Probes) -> None:  # noqa: ARG001 - with them
    async with visit(main):
        pass


async def test_postgresqls_superuser_comes_in_from_its_own_container_alone(main: Release) -> None:
    command = "psql", "-U", "postgres", "-AtqXc", "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'"
    assert (await main.namespace.execute(f"{main.object_name('postgresql')}-0", *command)).strip() == "t"
