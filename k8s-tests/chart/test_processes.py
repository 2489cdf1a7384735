"""The chart and the code agree: the real processes start with what the chart gives them, and answer where it asks."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.settings import read_settings
from chart.code import in_example, settings, settings_environment
from chart.rendering import VALUE_SETS, Object, Rendered, at, containers, environment, example, render
from core.settings import Environment
from local.children import HOST, Child, free_port
from local.parts import spawn_module, status
from tests.waiting import wait_until
from worker.settings import read

OWN_COMPONENTS = ("api", "worker", "migrate", "test")
# Ports by their names in the pods, and the settings that move them.
START_SECONDS = STOP_SECONDS = 30.0
PORTS = {"api": {"http": "PORT", "metrics": "METRICS_PORT"}, "worker": {"health": "HEALTH_PORT"}}


def own_pods(rendered: Rendered) -> list[tuple[str, Object]]:
    """The pods that run our processes."""
    return [
        (owner, pod)
        for owner, pod in rendered.pods()
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in OWN_COMPONENTS
    ]


def is_setting(name: str) -> bool:
    return bool({name, name.removesuffix("_FILE")} & settings())


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_variable_of_a_pod_is_a_setting(name: str) -> None:
    rendered = example(name)
    added = {
        entry["name"] for part in ("api", "worker") for entry in VALUE_SETS[name].get(part, {}).get("extraEnv", [])
    }
    strange = {
        f"{owner}: {variable}"
        for owner, pod in own_pods(rendered)
        for container in containers(pod)
        for variable in environment(container)
        if variable not in added and not variable.startswith("OTEL_") and not is_setting(variable)
    }
    assert strange == set()


def test_the_helm_test_asks_the_service() -> None:
    rendered = render(at("api.service.port", 8080))
    service = rendered.one("Service", "api")
    (port,) = (port["port"] for port in service["spec"]["ports"] if port["name"] == "http")
    (container,) = containers(rendered.pod("test"))
    assert f"http://{service['metadata']['name']}:{port}" in container["args"]


def test_every_setting_of_a_pod_is_in_the_example() -> None:
    assert settings() - in_example() == set()


@pytest.mark.parametrize("name", VALUE_SETS)
def test_services_of_the_namespace_set_no_variables(name: str) -> None:
    """One that is called `redis` would set REDIS_PORT."""
    assert [owner for owner, pod in example(name).pods() if pod["spec"].get("enableServiceLinks") is not False] == []


@pytest.mark.parametrize("name", VALUE_SETS)
def test_files_that_are_read_again_are_mounted_as_folders(name: str) -> None:
    """A `subPath` keeps what it was when the pod started."""
    for owner, pod in own_pods(example(name)):
        for container in containers(pod):
            assert not [mount for mount in container.get("volumeMounts", []) if "subPath" in mount], owner


def port_of(pod: Object, name: str) -> int:
    (port,) = (
        port["containerPort"] for one in containers(pod) for port in one.get("ports", []) if port["name"] == name
    )
    number: int = port
    return number


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_code_takes_what_the_api_is_given_and_listens_where_it_is_asked(name: str, tmp_path: Path) -> None:
    rendered = example(name)
    pod = rendered.pod("api")
    given = settings_environment(rendered, pod, tmp_path)
    found = read_settings(Environment(given))
    assert (found.port, found.metrics_port) == (port_of(pod, "http"), port_of(pod, "metrics"))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_code_takes_what_the_worker_is_given_and_listens_where_it_is_asked(name: str, tmp_path: Path) -> None:
    rendered = example(name)
    pod = rendered.pod("worker")
    assert read(Environment(settings_environment(rendered, pod, tmp_path))).health_port == port_of(pod, "health")


@dataclass
class Running:
    """A process that runs as in its pod, without any store, at other ports."""

    pod: Object
    ports: dict[str, int]

    async def probe(self, name: str) -> int:
        """The status that one of the pod's probes gets."""
        (container,) = self.pod["spec"]["containers"]
        question = container[f"{name}Probe"]["httpGet"]
        return await status(self.ports[question["port"]], question["path"])


async def running(component: str, folder: Path) -> AsyncIterator[Running]:
    rendered = render()
    pod = rendered.pod(component)
    ports = {name: free_port() for name in PORTS[component]}
    variables = {
        **settings_environment(rendered, pod, folder),
        **{setting: str(ports[name]) for name, setting in PORTS[component].items()},
        "HOST": HOST,
        "REDIS_HOST": HOST,
        "REDIS_PORT": str(free_port()),
        "PG_HOST": HOST,
        "PG_PORT": str(free_port()),
        "PATH": os.environ.get("PATH", os.defpath),
    }
    child = await spawn_module(component, variables, folder)
    process = Running(pod, ports)
    try:
        await wait_until(lambda: answers(child, process), f"{component} to start", START_SECONDS)
        yield process
    finally:
        await child.stop(STOP_SECONDS)


async def answers(child: Child, process: Running) -> bool:
    assert child.running, child.last_lines()
    return await process.probe("startup") == 200


@pytest.fixture(scope="module")
async def api(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:  # noqa: ARG001 - one event loop for all
    async for process in running("api", tmp_path_factory.mktemp("api")):
        yield process


@pytest.fixture(scope="module")
async def worker(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:  # noqa: ARG001 - one event loop for all
    async for process in running("worker", tmp_path_factory.mktemp("worker")):
        yield process


async def test_an_api_without_stores_is_alive_and_stays_in_the_service(api: Running) -> None:
    assert await api.probe("liveness") == 200
    assert await api.probe("readiness") == 200


async def test_a_worker_without_stores_is_alive_but_not_ready(worker: Running) -> None:
    """So `--wait` and a rollout wait until it can work, and no restart is wasted on an outage."""
    assert await worker.probe("liveness") == 200
    await wait_until(lambda: not_ready(worker), "the worker to notice that its stores are away")


async def not_ready(process: Running) -> bool:
    return await process.probe("readiness") == 503


@pytest.mark.parametrize(("component", "port"), [("api", "metrics"), ("worker", "health")])
async def test_metrics_are_where_the_monitors_look(component: str, port: str, api: Running, worker: Running) -> None:
    """Which ports and paths those are is tested with the monitors."""
    process = {"api": api, "worker": worker}[component]
    assert await status(process.ports[port], "/metrics") == 200
