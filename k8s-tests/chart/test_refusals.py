"""Values that do not go together are refused before anything is installed, with their names."""

import pytest

from chart.rendering import Object, at, refusal, render


@pytest.mark.parametrize(
    "values",
    [
        at("redis.external.tls", {}),
        at("postgresql.external.tls", {}),
        at("postgresql.external.tls", {"mode": "require"}),
    ],
    ids=["redis", "postgresql", "postgresql that is not checked"],
)
def test_an_authority_against_which_nothing_would_be_checked_is_refused(values: Object) -> None:
    ((store, external),) = values.items()
    outside = {store: {"enabled": False, "external": {"host": "x.example.org", "tls": {"caSecret": "ca"}}}}
    assert f"{store}.external.tls.caSecret" in refusal(outside, {store: external})


@pytest.mark.parametrize("component", ["api", "worker"])
@pytest.mark.parametrize("none", [0, "0%"])
def test_a_rollout_that_may_neither_add_nor_take_away_a_pod_is_refused(component: str, none: int | str) -> None:
    both = {"maxSurge": none, "maxUnavailable": 0}
    assert f"{component}.rollingUpdate" in refusal(at(f"{component}.rollingUpdate", both))


@pytest.mark.parametrize(
    ("component", "name"),
    [("api", "PORT"), ("api", "METRICS_PORT"), ("worker", "HEALTH_PORT"), ("api", "DRAIN_SECONDS")],
)
def test_a_variable_that_the_pods_surroundings_rely_on_is_refused(component: str, name: str) -> None:
    assert f"{component}.extraEnv sets {name}" in refusal(
        at(f"{component}.extraEnv", [{"name": name, "value": "5000"}])
    )


def test_the_address_that_the_processes_listen_on_may_be_set() -> None:
    assert render(at("api.extraEnv", [{"name": "HOST", "value": "::"}]))
