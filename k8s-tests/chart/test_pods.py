"""What each pod asks for, how it is probed, how it ends, and what makes it restart."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from api.__main__ import LAST_WORDS_SECONDS
from api.settings import read_settings
from chart.code import settings_environment
from chart.rendering import (
    CHART,
    VALUE_SETS,
    Object,
    Rendered,
    at,
    containers,
    example,
    labels,
    merged,
    pod_of,
    render,
    title,
)
from core.settings import Environment
from worker.writer import GRACE_SECONDS, RELEASE_SECONDS

# A store that replays a long log, or an image that comes slowly, is not a failed start.
STARTUP_SECONDS = 300
BYTES = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}
LASTING = ("Deployment", "StatefulSet")
SELECTING = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
# Kubernetes refuses any other change of a StatefulSet.
STATEFULSET_MAY_CHANGE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}


def number_of_bytes(quantity: str) -> int:
    found = re.fullmatch(r"(\d+)(\D*)", str(quantity))
    assert found, quantity
    return int(found[1]) * BYTES[found[2]]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_container_requests_cpu_and_memory_and_has_a_limit_of_memory_alone(name: str) -> None:
    wrong = []
    for owner, pod in example(name).pods():
        for container in containers(pod):
            requests, limits = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
            if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits or "cpu" in limits:
                wrong.append(f"{owner}: {container['name']}: {container.get('resources')}")
            elif number_of_bytes(requests["memory"]) > number_of_bytes(limits["memory"]):
                wrong.append(f"{owner}: {container['name']} requests more memory than it may use")
    assert wrong == []


def lasting(rendered: Rendered) -> list[Object]:
    return [found for kind in LASTING for found in rendered.of(kind)]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_lasting_container_is_probed_and_may_take_five_minutes_to_start(name: str) -> None:
    wrong = []
    for found in lasting(example(name)):
        for container in pod_of(found)["spec"]["containers"]:
            if not {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys():
                wrong.append(f"{title(found)}: {container['name']} has not all three probes")
                continue
            startup = container["startupProbe"]
            seconds = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
            if seconds < STARTUP_SECONDS:
                wrong.append(f"{title(found)}: {container['name']} may take {seconds} s to start")
    assert wrong == []


@pytest.mark.parametrize("component", ["api", "worker"])
def test_liveness_is_another_question_than_readiness(component: str) -> None:
    (container,) = render().pod(component)["spec"]["containers"]
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("liveness", "readiness")}
    assert paths == {"liveness": "/livez", "readiness": "/readyz"}


@pytest.mark.parametrize("component", ["redis", "postgresql"])
def test_a_store_that_reads_its_log_for_long_is_alive(component: str) -> None:
    """It takes connections, and answers later."""
    (container,) = render().pod(component)["spec"]["containers"]
    assert container["livenessProbe"]["tcpSocket"] == {"port": component}


@pytest.mark.parametrize(
    ("answer", "ready"), [("PONG", True), ("LOADING Redis is loading the dataset in memory", False)]
)
def test_redis_is_ready_once_it_has_read_its_file(answer: str, *, ready: bool, tmp_path: Path) -> None:
    """Its client ends with 0 after an error, too."""
    client = tmp_path / "redis-cli"
    client.write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
    client.chmod(0o755)
    (container,) = render().pod("redis")["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        command = container[probe]["exec"]["command"]
        done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=10, check=False)
        assert (done.returncode == 0) is ready


@pytest.mark.parametrize("component", ["redis", "postgresql"])
def test_a_stores_volume_is_its_users(component: str) -> None:
    security = render().pod(component)["spec"]["securityContext"]
    assert security["fsGroup"] == security["runAsUser"] == 999


def test_metrics_are_read_from_pods_that_are_not_ready_too() -> None:
    rendered = render(at("monitoring.serviceMonitor.enabled", True))
    metrics = [found for found in rendered.of("Service") if found["metadata"]["name"].endswith("-metrics")]
    assert [found["spec"].get("publishNotReadyAddresses") for found in metrics] == [True, True]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_pod_of_the_api_is_killed_only_after_its_longest_drain(name: str, tmp_path: Path) -> None:
    rendered = render(VALUE_SETS[name], {"api": {"drainSeconds": 77, "preStopSeconds": 9}})
    pod = rendered.pod("api")
    drain = read_settings(Environment(settings_environment(rendered, pod, tmp_path))).drain_seconds
    assert drain == 77
    assert sleep_of(pod) == 9
    assert grace(pod) > drain + LAST_WORDS_SECONDS + sleep_of(pod)


def test_a_pod_of_the_api_takes_connections_until_every_node_knows_that_it_ends() -> None:
    assert sleep_of(render().pod("api")) >= 3


def test_a_pod_of_the_worker_is_killed_only_after_it_has_given_back_what_it_claimed() -> None:
    assert grace(render().pod("worker")) > GRACE_SECONDS + RELEASE_SECONDS


@pytest.mark.parametrize("component", ["redis", "postgresql"])
def test_a_store_has_time_to_write_down_what_it_holds(component: str) -> None:
    assert grace(render().pod(component)) >= 60


def sleep_of(pod: Object) -> int:
    (container,) = pod["spec"]["containers"]
    seconds: int = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    return seconds


def grace(pod: Object) -> int:
    seconds: int = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return seconds


REPLICAS = {
    "api": (
        at("api.replicas", 1),
        [at("api.replicas", 2), {"api": {"autoscaling": {"enabled": True, "minReplicas": 2}}}],
    ),
    "worker": (
        at("worker.replicas", 1),
        [at("worker.replicas", 2), {"worker": {"keda": {"enabled": True, "minReplicas": 2}}}],
    ),
}


@pytest.mark.parametrize("component", REPLICAS)
def test_a_disruption_budget_is_there_only_with_more_than_one_pod(component: str) -> None:
    one, several = REPLICAS[component]
    assert render(one).of("PodDisruptionBudget", component) == []
    for values in several:
        rendered = render(values)
        spec = rendered.one("PodDisruptionBudget", component)["spec"]
        # Never minAvailable: with as many pods as it names no node could be drained any more.
        assert spec.keys() == {"maxUnavailable", "unhealthyPodEvictionPolicy", "selector"}
        assert spec["maxUnavailable"] == 1
        # Else no node could be drained while a store is away: no worker is ready then.
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert spec["selector"] == rendered.one("Deployment", component)["spec"]["selector"]


def test_a_single_pod_that_a_scaler_may_double_has_no_disruption_budget() -> None:
    assert render({"api": {"autoscaling": {"enabled": True, "minReplicas": 1}}}).of("PodDisruptionBudget", "api") == []
    for least in (0, 1):
        keda = {"worker": {"keda": {"enabled": True, "minReplicas": least}}}
        assert render(keda).of("PodDisruptionBudget", "worker") == []


@pytest.mark.parametrize("component", ["api", "worker"])
def test_pods_are_spread_where_that_is_possible(component: str) -> None:
    rendered = render()
    constraints = rendered.pod(component)["spec"]["topologySpreadConstraints"]
    assert "kubernetes.io/hostname" in {constraint["topologyKey"] for constraint in constraints}
    for constraint in constraints:
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        selector = rendered.one("Deployment", component)["spec"]["selector"]["matchLabels"]
        assert constraint["labelSelector"]["matchLabels"] == selector
    own = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    assert (
        render(at(f"{component}.topologySpreadConstraints", own)).pod(component)["spec"]["topologySpreadConstraints"]
        == own
    )


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_selector_is_name_instance_and_component_and_takes_its_own_pods_alone(name: str) -> None:
    rendered = example(name)
    pods = {owner: labels(pod) for owner, pod in rendered.pods()}
    for found in lasting(rendered):
        selector = found["spec"]["selector"]["matchLabels"]
        assert selector.keys() == SELECTING, title(found)
        assert [owner for owner, seen in pods.items() if selector.items() <= seen.items()] == [title(found)]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_service_leads_to_one_kind_of_pod_and_to_ports_that_it_has(name: str) -> None:
    rendered = example(name)
    for service in rendered.of("Service"):
        selector = service["spec"]["selector"]
        ways = [pod for _, pod in rendered.pods() if selector.items() <= labels(pod).items()]
        assert len(ways) == 1, title(service)
        ports = {port["name"] for container in containers(ways[0]) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, title(service)


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as its next release, with nothing changed but the versions."""
    folder = tmp_path_factory.mktemp("next") / "chatbot"
    shutil.copytree(CHART, folder)
    metadata = (folder / "Chart.yaml").read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^(version|appVersion): .*$", r'\1: "99.9.9"', metadata)
    assert changed.count("99.9.9") == 2
    (folder / "Chart.yaml").write_text(changed, encoding="utf-8")
    return folder


def selectors(rendered: Rendered) -> dict[str, Any]:
    return {title(found): found["spec"]["selector"] for found in [*lasting(rendered), *rendered.of("Service")]}


def test_selectors_do_not_change_with_versions_nor_labels(next_version: Path) -> None:
    before = selectors(render())
    assert selectors(render(folder=next_version)) == before
    assert selectors(render({"commonLabels": {"team": "chat"}, "api": {"podLabels": {"a": "b"}}})) == before


def kept(rendered: Rendered) -> dict[str, Object]:
    """Of each StatefulSet, what Kubernetes refuses to change."""
    return {
        title(found): {key: value for key, value in found["spec"].items() if key not in STATEFULSET_MAY_CHANGE}
        for found in rendered.of("StatefulSet")
    }


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"commonLabels": {"team": "chat"}, "commonAnnotations": {"team": "chat"}},
        {"redis": {"podLabels": {"a": "b"}, "podAnnotations": {"a": "b"}, "image": {"tag": "8.0.1"}}},
        {"postgresql": {"podLabels": {"a": "b"}, "resources": {"limits": {"memory": "4Gi"}}, "user": "other"}},
        {"worker": {"keda": {"enabled": True}}, "networkPolicy": {"enabled": False}},
        {"monitoring": {"serviceMonitor": {"enabled": True}}},
    ],
    ids=["versions", "common", "redis", "postgresql", "keda", "monitoring"],
)
def test_what_kubernetes_refuses_to_change_in_a_statefulset_stays(values: Object, next_version: Path) -> None:
    before = kept(render())
    assert len(before) == 2
    assert kept(render(values, folder=next_version)) == before


def test_a_new_version_restarts_no_store(next_version: Path) -> None:
    before, after = (
        {title(found): pod_of(found) for found in rendered.of("StatefulSet")}
        for rendered in (render(GIVEN), render(GIVEN, folder=next_version))
    )
    assert before == after


GIVEN: Object = {
    "api": {"auth": {"apiKey": "k1"}},
    "redis": {"password": "p1"},
    "postgresql": {"password": "p2"},
    "worker": {"keda": {"redisPassword": "p3"}},
}
HOST: Object = {"host": "chat.example.org", "paths": [{"path": "/", "pathType": "Prefix"}]}
# A change of values, and whose pods it restarts.
CHANGES: list[tuple[Object, set[str]]] = [
    ({}, set()),
    ({"redis": {"maxmemoryPercent": 61}}, {"redis", "api"}),
    ({"postgresql": {"parameters": {"work_mem": "8MB"}}}, {"postgresql"}),
    ({"redis": {"password": "changed"}}, {"api", "worker", "redis"}),
    # PostgreSQL reads its own only when its volume is new.
    ({"postgresql": {"password": "changed"}}, {"api", "worker"}),
    ({"api": {"auth": {"apiKey": "changed"}}}, {"api"}),
    ({"api": {"replicas": 5}, "ingress": {"enabled": True, "hosts": [HOST]}}, set()),
    ({"networkPolicy": {"enabled": False}}, set()),
    ({"commonAnnotations": {"by": "somebody"}}, set()),
    ({"monitoring": {"podMonitor": {"enabled": True}, "dashboards": {"enabled": True}}}, set()),
    ({"api": {"podAnnotations": {"a": "b"}}}, {"api"}),
    ({"worker": {"batchEntries": 100}}, {"worker"}),
    ({"api": {"service": {"port": 80}, "drainSeconds": 31}}, {"api"}),
    ({"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}]}, set()),
]


@pytest.mark.parametrize(("values", "restarted"), CHANGES, ids=[str(values) for values, _ in CHANGES])
def test_pods_restart_only_for_what_concerns_them(values: Object, restarted: set[str]) -> None:
    before, after = render(GIVEN), render(GIVEN, values)
    changed = {
        component
        for component in ("api", "worker", "redis", "postgresql")
        if before.pod(component) != after.pod(component)
    }
    assert changed == restarted


def test_redis_restarts_to_learn_of_kedas_new_password() -> None:
    one, other = (render(GIVEN, {"worker": {"keda": {"enabled": True, "redisPassword": text}}}) for text in "ab")
    assert one.pod("redis") != other.pod("redis")
    assert one.pod("worker") == other.pod("worker")


def test_a_change_of_the_upstreams_file_restarts_nothing() -> None:
    """The API reads it again."""
    one, other = (render(GIVEN, at("api.upstream.file.content", text)) for text in ("a = 1", "a = 2"))
    assert one.pod("api") == other.pod("api")
    assert one.of("ConfigMap", "api") != other.of("ConfigMap", "api")


def test_checksums_do_not_depend_on_versions(next_version: Path) -> None:
    def checksums(rendered: Rendered) -> dict[str, Object]:
        return {
            owner: {
                key: value for key, value in (pod["metadata"].get("annotations") or {}).items() if "checksum" in key
            }
            for owner, pod in rendered.pods()
            if not owner.startswith("Job/")
        }

    before = checksums(render(GIVEN))
    assert any(before.values())
    assert checksums(render(GIVEN, folder=next_version)) == before


@pytest.mark.parametrize("component", ["api", "worker"])
def test_a_writable_root_is_replaced_by_folders_of_its_own(component: str) -> None:
    pod = render().pod(component)
    emptied = {volume["name"] for volume in pod["spec"].get("volumes", []) if "emptyDir" in volume}
    mounted = {
        mount["mountPath"] for one in containers(pod) for mount in one["volumeMounts"] if mount["name"] in emptied
    }
    # Where Python's tempfile looks first.
    assert "/tmp" in mounted  # noqa: S108


def test_everything_can_be_said_about_a_pod() -> None:
    said: Object = {
        "podAnnotations": {"example.org/a": "1"},
        "podLabels": {"example.org/b": "2"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    }
    for component in ("api", "worker", "redis", "postgresql"):
        pod = render({component: said}).pod(component)
        assert (
            merged(pod["metadata"], {"annotations": said["podAnnotations"], "labels": said["podLabels"]})
            == pod["metadata"]
        )
        spec = {key: pod["spec"][key] for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName")}
        assert spec == {key: said[key] for key in spec}
