"""Who decides how many pods there are: values, an HPA, or KEDA by the length of the queue."""

import pytest

from chart.code import settings_environment
from chart.rendering import FULLNAME, Object, Rendered, at, containers, environment, refusal, render
from core.queue import HOT, QUEUE
from core.settings import Environment
from worker.queue import HOT_SECONDS
from worker.settings import read

KEDA = at("worker.keda.enabled", True)
HPA = at("api.autoscaling.enabled", True)


def triggers(rendered: Rendered) -> dict[str, Object]:
    """KEDA's triggers by the list that each looks at."""
    return {trigger["metadata"]["listName"]: trigger for trigger in rendered.one("ScaledObject")["spec"]["triggers"]}


def test_without_keda_there_is_one_worker() -> None:
    rendered = render()
    assert rendered.of("ScaledObject") + rendered.of("TriggerAuthentication") == []
    assert rendered.one("Deployment", "worker")["spec"]["replicas"] == 1


def test_values_say_how_many_pods_there_are() -> None:
    rendered = render(at("api.replicas", 3), at("worker.replicas", 2))
    assert [rendered.one("Deployment", component)["spec"]["replicas"] for component in ("api", "worker")] == [3, 2]


def test_who_is_scaled_has_no_replicas_of_its_own() -> None:
    rendered = render(KEDA, HPA)
    for component in ("api", "worker"):
        assert "replicas" not in rendered.one("Deployment", component)["spec"]


@pytest.mark.parametrize(("scaler", "replicas"), [(KEDA, "worker.replicas"), (HPA, "api.replicas")])
def test_replicas_together_with_a_scaler_are_refused_with_what_to_do(scaler: Object, replicas: str) -> None:
    assert replicas in refusal(scaler, at(replicas, 3))


def test_the_hpa_scales_the_api() -> None:
    rendered = render(
        {
            "api": {
                "autoscaling": {
                    "enabled": True,
                    "minReplicas": 3,
                    "maxReplicas": 7,
                    "targetCPUUtilizationPercentage": 55,
                }
            }
        }
    )
    spec = rendered.one("HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{FULLNAME}-api"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 7)
    assert spec["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 55}}}
    ]


def test_keda_scales_the_worker() -> None:
    spec = render(KEDA).one("ScaledObject")["spec"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{FULLNAME}-worker"}
    assert {**target, **spec["scaleTargetRef"]} == {**spec["scaleTargetRef"], **target}
    assert spec["minReplicaCount"] == 1


def test_keda_looks_at_the_lists_that_the_code_uses() -> None:
    assert triggers(render(KEDA)).keys() == {QUEUE, HOT}


def test_keda_may_go_to_zero_and_wakes_up_for_the_first_entry() -> None:
    rendered = render({"worker": {"keda": {"enabled": True, "minReplicas": 0}}})
    assert rendered.one("ScaledObject")["spec"]["minReplicaCount"] == 0
    assert "idleReplicaCount" not in rendered.one("ScaledObject")["spec"]
    assert triggers(rendered)[QUEUE]["metadata"]["activationListLength"] == "0"


@pytest.mark.parametrize("batch", [None, 5000])
def test_a_pod_is_wanted_for_more_than_what_one_has_in_flight(batch: int | None) -> None:
    rendered = render(KEDA, at("worker.batchEntries", batch) if batch else {})
    settings = read(Environment(settings_environment(rendered, rendered.pod("worker"))))
    assert int(triggers(rendered)[QUEUE]["metadata"]["listLength"]) > settings.batch_entries
    assert batch in (None, settings.batch_entries)


def test_a_list_length_within_a_batch_is_refused() -> None:
    assert "listLength" in refusal({"worker": {"batchEntries": 2000, "keda": {"enabled": True, "listLength": 2000}}})


def test_a_worker_that_has_just_worked_asks_for_no_second_one() -> None:
    metadata = triggers(render(KEDA))[HOT]["metadata"]
    assert int(metadata["listLength"]) >= 1
    assert metadata["activationListLength"] == "0"
    assert render(KEDA).one("ScaledObject")["spec"]["pollingInterval"] < HOT_SECONDS


def test_keda_never_decides_without_redis() -> None:
    """A fallback to 0 would stop the worker while entries wait; without one the number of pods stays."""
    assert "fallback" not in render(KEDA).one("ScaledObject")["spec"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "redis": {
                "enabled": False,
                "external": {
                    "host": "redis.example.org",
                    "port": 6390,
                    "existingSecret": "mine",
                    "tls": {"enabled": True, "caSecret": "ca"},
                },
            }
        },
    ],
    ids=["bundled", "external"],
)
def test_keda_reaches_the_redis_that_the_worker_uses(values: Object) -> None:
    rendered = render(KEDA, values)
    (container,) = containers(rendered.pod("worker"))
    own = environment(container)
    for trigger in triggers(rendered).values():
        metadata = trigger["metadata"]
        assert trigger["type"] == "redis"
        host, _, port = metadata.get("address", "").partition(":")
        host = host or metadata.get("host") or own[metadata["hostFromEnv"]]["value"]
        port = port or metadata.get("port") or own[metadata["portFromEnv"]]["value"]
        # KEDA looks from its own namespace, where a bare name means another Service.
        wanted = own["REDIS_HOST"]["value"]
        assert host in (wanted, f"{wanted}.chats", f"{wanted}.chats.svc", f"{wanted}.chats.svc.cluster.local")
        assert host.count(".") > 0 or "hostFromEnv" in metadata
        assert port == own["REDIS_PORT"]["value"]
        assert metadata.get("enableTLS", "false") == own.get("REDIS_TLS", {"value": "false"})["value"]
        assert not any("password" in key.lower() for key in metadata)
        assert trigger["authenticationRef"]["name"] == rendered.one("TriggerAuthentication")["metadata"]["name"]


def test_kedas_user_in_the_charts_redis_has_a_password_of_its_own() -> None:
    parameters = {
        reference["parameter"]: reference
        for reference in render(KEDA).one("TriggerAuthentication")["spec"]["secretTargetRef"]
    }
    assert parameters["password"] == {"parameter": "password", "name": FULLNAME, "key": "keda-redis-password"}


@pytest.mark.parametrize("password", ["", "some"])
def test_keda_trusts_the_authority_that_the_worker_trusts(password: str) -> None:
    tls = {"enabled": True, "caSecret": "ca", "caSecretKey": "root.pem"}
    external = {"host": "redis.example.org", "password": password, "tls": tls}
    rendered = render(KEDA, {"redis": {"enabled": False, "external": external}})
    parameters = {one["parameter"]: one for one in rendered.one("TriggerAuthentication")["spec"]["secretTargetRef"]}
    assert parameters["ca"] == {"parameter": "ca", "name": "ca", "key": "root.pem"}
    assert ("password" in parameters) == bool(password)
