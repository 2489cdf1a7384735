"""Names, labels and annotations; what a user adds; what an Ingress and a route lead to."""

import functools
import re
from collections import Counter

import pytest

from chart.rendering import (
    FULLNAME,
    NAME,
    VALUE_SETS,
    Object,
    Rendered,
    at,
    containers,
    environment,
    labels,
    nodes,
    refusal,
    render,
    title,
)

LONGEST = "a23456789-123456789-123456789-123456789-123456789-123"
# Short enough to stay whole, were it not for what is put behind it.
LONG = LONGEST[:44]
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
# A label holds a StatefulSet's name with the hash of its revision behind.
MOST_CHARACTERS = {"StatefulSet": 52, "CronJob": 52}
HOST = "chat.example.org"
INGRESS: Object = {
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a/b": "c"},
        "hosts": [{"host": HOST, "paths": [{"path": "/", "pathType": "Prefix"}]}],
        "tls": [{"secretName": "tls", "hosts": [HOST]}],
    }
}
ROUTE: Object = {
    "httpRoute": {
        "enabled": True,
        "annotations": {"a/b": "c"},
        "parentRefs": [{"name": "public", "namespace": "gateways"}],
        "hostnames": [HOST],
        "timeouts": {"request": "0s"},
    }
}


def named(rendered: Rendered) -> set[str]:
    return {title(found) for found in rendered.objects}


@functools.cache
def everywhere(name: str) -> Rendered:
    """Everything that all examples have between them, in one release."""
    ours: Object = {"fullnameOverride": "", "extraObjects": []}
    return Rendered([found for values in VALUE_SETS.values() for found in render(values, ours, name=name).objects], "")


@pytest.mark.parametrize("name", [NAME, LONG, LONGEST, "with.a.dot"])
def test_every_name_is_one_that_kubernetes_takes(name: str) -> None:
    for found in everywhere(name).objects:
        mine = found["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", mine), title(found)
        assert len(mine) <= MOST_CHARACTERS.get(found["kind"], 63), title(found)


@pytest.mark.parametrize("name", [NAME, LONG, LONGEST])
def test_every_label_is_one_that_kubernetes_takes(name: str) -> None:
    rendered = everywhere(name)
    for found in [*rendered.objects, *(pod for _, pod in rendered.pods())]:
        for key, value in labels(found).items():
            assert isinstance(value, str)
            assert len(value) <= 63, key
            assert LABEL.fullmatch(value), f"{key}: {value}"


def test_every_object_says_what_it_is_of() -> None:
    for found in everywhere(NAME).objects:
        mine = labels(found)
        assert mine["app.kubernetes.io/name"] == "chatbot", title(found)
        assert mine["app.kubernetes.io/instance"] == NAME
        assert mine["app.kubernetes.io/part-of"] == "chatbot"
        assert mine["app.kubernetes.io/managed-by"] == "Helm"
        assert mine["app.kubernetes.io/version"]
        assert mine["helm.sh/chart"].startswith("chatbot-")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("demo", "test"),
        ("chatbot", "chatbot-api"),
        ("chatbot", "chatbot-redis"),
        ("chatbot", "demo"),
        (LONGEST, f"{LONGEST[:-1]}4"),
        ("a", "a-chatbot-api"),
    ],
)
def test_two_releases_share_no_name(one: str, other: str) -> None:
    shared = named(everywhere(one)) & named(everywhere(other))
    assert shared == set()


def test_two_releases_share_no_pod() -> None:
    mine, other = render(name="demo"), render(name="test")
    for found in [*mine.of("Deployment"), *mine.of("StatefulSet"), *mine.of("Service")]:
        selector = found["spec"]["selector"].get("matchLabels", found["spec"]["selector"])
        assert not [owner for owner, pod in other.pods() if selector.items() <= labels(pod).items()]


def test_names_can_be_overridden() -> None:
    assert {found["metadata"]["name"].startswith("talk") for found in render({"fullnameOverride": "talk"}).objects} == {
        True
    }
    assert render({"nameOverride": "talk"}).of("Deployment", "api")[0]["metadata"]["name"] == f"{NAME}-talk-api"


def test_a_parent_chart_can_leave_it_out() -> None:
    assert render({"enabled": False}).objects == []


@pytest.mark.parametrize("name", VALUE_SETS)
def test_common_labels_and_annotations_are_on_every_object(name: str) -> None:
    common = {"commonLabels": {"team": "chat"}, "commonAnnotations": {"example.org/by": "us"}, "extraObjects": []}
    for found in render(VALUE_SETS[name], common).objects:
        assert labels(found)["team"] == "chat", title(found)
        assert found["metadata"]["annotations"]["example.org/by"] == "us", title(found)


def test_extra_objects_are_rendered_as_maps_and_as_text_with_templates() -> None:
    extra: list[Object | str] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first"}, "data": {"of": "{{ .Release.Name }}"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-second\n",
    ]
    plain = render()
    added = {
        title(found): found for found in render({"extraObjects": extra}).objects if title(found) not in named(plain)
    }
    assert added.keys() == {"ConfigMap/first", f"ConfigMap/{NAME}-second"}
    assert added["ConfigMap/first"]["data"] == {"of": NAME}


@pytest.mark.parametrize("component", ["api", "worker"])
def test_extra_variables_reach_the_container(component: str) -> None:
    extra: list[Object] = [
        {"name": "LOG_LEVEL", "value": "DEBUG"},
        {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    (container,) = containers(render(at(f"{component}.extraEnv", extra)).pod(component))
    assert [environment(container)[entry["name"]] for entry in extra] == extra


@pytest.mark.parametrize("component", ["api", "worker"])
def test_no_variable_is_there_twice(component: str) -> None:
    """The last one counts, so one of the user's own has to be the only one: strict appliers refuse two."""
    extra = [{"name": "LOG_LEVEL", "value": "DEBUG"}]
    (container,) = containers(render(at(f"{component}.extraEnv", extra)).pod(component))
    names = Counter(entry["name"] for entry in container["env"])
    assert [name for name, count in names.items() if count > 1] == []


def backends(node: object) -> list[Object]:
    """The Services that an Ingress or a route leads to, each with its port."""
    found: list[Object] = []
    for one in nodes(node):
        found += one.get("backendRefs", [])
        found += [one["service"]] if isinstance(one.get("service"), dict) else []
    return found


def test_ingress_and_route_are_off_and_independent() -> None:
    assert {"Ingress", "HTTPRoute"} & {found["kind"] for found in render().objects} == set()
    assert {"Ingress", "HTTPRoute"} & {found["kind"] for found in render(INGRESS).objects} == {"Ingress"}
    assert {"Ingress", "HTTPRoute"} & {found["kind"] for found in render(ROUTE).objects} == {"HTTPRoute"}
    both = render(INGRESS, ROUTE)
    assert both.one("Ingress") == render(INGRESS).one("Ingress")
    assert both.one("HTTPRoute") == render(ROUTE).one("HTTPRoute")


@pytest.mark.parametrize(("values", "kind"), [(INGRESS, "Ingress"), (ROUTE, "HTTPRoute")])
def test_what_comes_from_outside_is_led_to_the_apis_port(values: Object, kind: str) -> None:
    rendered = render(values)
    found = rendered.one(kind)
    assert found["metadata"]["annotations"]["a/b"] == "c"
    service = rendered.one("Service", "api")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    (backend,) = backends(found["spec"])
    assert backend["name"] == service["metadata"]["name"] == f"{FULLNAME}-api"
    port = backend["port"]
    assert (ports.get(port.get("name"), port.get("number")) if isinstance(port, dict) else port) == ports["http"]


def test_an_ingress_says_what_it_was_told() -> None:
    spec = render(INGRESS).one("Ingress")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert [rule["host"] for rule in spec["rules"]] == [HOST]
    assert spec["tls"] == [{"secretName": "tls", "hosts": [HOST]}]


def test_a_route_says_what_it_was_told() -> None:
    spec = render(ROUTE).one("HTTPRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    assert spec["hostnames"] == [HOST]
    assert [rule["timeouts"] for rule in spec["rules"]] == [{"request": "0s"}]


def test_a_service_is_what_it_was_told() -> None:
    spec = render({"api": {"service": {"type": "NodePort", "port": 80, "nodePort": 30080}}}).one("Service", "api")[
        "spec"
    ]
    assert spec["type"] == "NodePort"
    (http,) = (port for port in spec["ports"] if port["name"] == "http")
    assert (http["port"], http["nodePort"]) == (80, 30080)


def test_a_name_that_is_no_name_is_refused() -> None:
    assert refusal({"fullnameOverride": "Not a name"})
