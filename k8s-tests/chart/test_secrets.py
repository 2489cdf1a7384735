"""Passwords are made once and stay; they stand in the Secret and nowhere else."""

import base64
import json
import re
from collections.abc import Iterator

import pytest

from chart.fake_api import FakeApi, fake_api
from chart.rendering import FULLNAME, VALUE_SETS, Object, Rendered, at, example, merged, nodes, render

# Where each secret of the chart's own Secret may be given, by its key there.
GIVEN = {
    "api-key": "api.auth.apiKey",
    "openai-api-key": "api.upstream.apiKey",
    "redis-password": "redis.password",
    "postgresql-password": "postgresql.password",
    "keda-redis-password": "worker.keda.redisPassword",
}
EXTERNAL = {"redis-password": "redis.external.password", "postgresql-password": "postgresql.external.password"}
KEDA = at("worker.keda.enabled", True)
MADE = set(GIVEN) - {"openai-api-key"}


def marked(key: str) -> str:
    return f"Marked{key.replace('-', '').title()}0815"


def all_given(values: Object) -> Object:
    """Values with every secret given that they leave room for."""
    keys_file = values.get("api", {}).get("auth", {}).get("keysFile")
    given = (at(path, marked(key)) for key, path in GIVEN.items() if not (keys_file and key == "api-key"))
    return merged(values, *given)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


def secret(rendered: Rendered) -> dict[str, str]:
    """The chart's Secret as the API server would keep it: data, in base64."""
    found = rendered.one("Secret")
    assert found["metadata"]["name"] == FULLNAME
    assert found.get("type", "Opaque") == "Opaque"
    written = {key: base64.b64encode(value.encode()).decode() for key, value in (found.get("stringData") or {}).items()}
    return {**(found.get("data") or {}), **written}


def plain(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def put(api: FakeApi, data: dict[str, str]) -> None:
    api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": FULLNAME}, "data": data})


def outside_of_secrets(rendered: Rendered) -> str:
    shown = [found for found in rendered.objects if found["kind"] != "Secret"]
    return json.dumps(shown) + rendered.notes


def test_what_nobody_gave_is_made_long_and_alphanumeric() -> None:
    made = plain(secret(render(KEDA)))
    assert made.keys() == MADE
    assert all(re.fullmatch(r"[A-Za-z0-9]{24,}", value) for value in made.values()), made
    assert len(set(made.values())) == len(made)


def test_two_installations_get_different_ones() -> None:
    first, second = plain(secret(render(KEDA))), plain(secret(render(KEDA)))
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize("revision", [1, 2], ids=["installed again", "upgraded"])
def test_what_is_live_stays_byte_for_byte(api: FakeApi, revision: int) -> None:
    first = api.render(KEDA)
    put(api, secret(first))
    again = api.render(KEDA, revision=revision)
    assert secret(again) == secret(first)
    # Nothing restarts for a password either.
    assert again.objects == first.objects


@pytest.mark.parametrize("key", sorted(MADE))
def test_a_missing_key_alone_is_made(api: FakeApi, key: str) -> None:
    live = secret(api.render(KEDA))
    put(api, {name: value for name, value in live.items() if name != key})
    made = secret(api.render(KEDA, revision=2))
    assert {name: value for name, value in made.items() if name != key} == {
        name: value for name, value in live.items() if name != key
    }
    assert re.fullmatch(r"[A-Za-z0-9]{24,}", plain(made)[key])
    assert made[key] != live[key]


def test_what_nobody_needs_for_the_time_being_stays(api: FakeApi) -> None:
    """The volume of a PostgreSQL that is switched off opens to its own password alone."""
    live = secret(api.render(KEDA))
    put(api, live)
    outside = {"enabled": False, "external": {"host": "x.example.org"}}
    assert secret(api.render({"redis": outside, "postgresql": outside}, revision=2)) == live


@pytest.mark.parametrize("key", sorted(GIVEN))
def test_what_is_given_goes_before_what_is_live(api: FakeApi, key: str) -> None:
    put(api, secret(api.render(KEDA)))
    assert plain(secret(api.render(KEDA, at(GIVEN[key], marked(key)), revision=2)))[key] == marked(key)


def test_another_releases_secret_is_left_alone(api: FakeApi) -> None:
    put(api, secret(api.render(KEDA)))
    other = api.render(KEDA, name="other").one("Secret")
    assert other["metadata"]["name"] != FULLNAME
    assert not set(secret(api.render(KEDA)).values()) & set(other["data"].values())


@pytest.mark.parametrize("name", VALUE_SETS)
def test_with_everything_given_two_renders_are_equal(name: str) -> None:
    values = all_given(VALUE_SETS[name])
    assert render(values).objects == render(values).objects


def test_an_existing_secret_leaves_none_to_render() -> None:
    values = merged(KEDA, {"existingSecret": "mine"})
    assert render(values).of("Secret") == []
    assert render(values).objects == render(values).objects


def test_an_existing_secret_may_be_without_a_key_for_the_upstream() -> None:
    """The pods would not start."""
    (container,) = render({"existingSecret": "mine"}).pod("api")["spec"]["containers"]
    optional = {
        node["key"] for one in container["env"] for node in one.get("valueFrom", {}).values() if node.get("optional")
    }
    assert optional == {"openai-api-key"}


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("api-key", "api.auth"),
        ("redis-password", "redis"),
        ("postgresql-password", "postgresql"),
        ("openai-api-key", "api.upstream"),
    ],
)
def test_an_existing_secret_for_one_part_leaves_its_key_out(key: str, path: str) -> None:
    rendered = render(at(f"{path}.existingSecret", "mine"), at(f"{path}.existingSecretKey", "there"))
    assert key not in secret(rendered)
    assert ("mine", "there") in references(rendered)


def references(rendered: Rendered) -> Iterator[tuple[str, str]]:
    """(Secret, key) of whatever any pod reads, as a variable or as a file."""
    for _, pod in rendered.pods():
        for node in nodes(pod):
            if "secretKeyRef" in node:
                yield node["secretKeyRef"]["name"], node["secretKeyRef"]["key"]
            if "secretName" in node:
                yield from ((node["secretName"], item["key"]) for item in node.get("items", []))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_charts_secret_has_the_keys_that_pods_ask_for_and_no_others(name: str) -> None:
    rendered = example(name)
    made = {(found["metadata"]["name"], key) for found in rendered.of("Secret") for key in found["data"]}
    names = {name for name, _ in made}
    assert {asked for asked in references(rendered) if asked[0] in names} == made


@pytest.mark.parametrize("name", VALUE_SETS)
def test_uninstalling_keeps_the_secret(name: str) -> None:
    kept = [found["metadata"]["annotations"]["helm.sh/resource-policy"] for found in example(name).of("Secret")]
    assert set(kept) <= {"keep"}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_secrets_stand_nowhere_but_in_secrets(name: str) -> None:
    external = merged(*(at(path, f"External{marked(key)}") for key, path in EXTERNAL.items()))
    rendered = render(all_given(VALUE_SETS[name]), external)
    shown = outside_of_secrets(rendered)
    assert "Marked" not in shown
    assert base64.b64encode(b"Marked").decode()[:8] not in shown


def test_what_was_made_stands_nowhere_but_in_the_secret() -> None:
    rendered = render(KEDA)
    shown = outside_of_secrets(rendered)
    assert [key for key, value in plain(secret(rendered)).items() if value in shown] == []


@pytest.mark.parametrize("name", VALUE_SETS)
def test_no_variable_of_a_pod_holds_a_secret_as_a_value(name: str) -> None:
    telling = re.compile(r"(PASSWORD|SECRET|TOKEN|API_KEY|_AUTH|HEADERS)$")
    open_ones = [
        f"{owner}: {variable['name']}"
        for owner, pod in example(name).pods()
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        for variable in container.get("env", [])
        if telling.search(variable["name"]) and variable.get("value")
    ]
    assert open_ones == []
