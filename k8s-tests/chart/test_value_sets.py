"""Each example of values is sound for Helm and for the API servers of the oldest and the newest Kubernetes."""

import copy
from collections.abc import Callable

import helm_python
import pytest

from chart.rendering import CHART, VALUE_SETS, Object, chart, documents, example, merged, render, title
from chart.test_values import resolved, schema
from chart.validation import faults, supported_minors

OLDEST, NEWEST = supported_minors()
DIGITS = "12345"
# Helm's number; below it are recommendations, such as an icon.
WARNING = 2
# What a cluster may not know: only asked for by name.
OPTIONAL = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute"}
WAYS = {
    "default",
    "external-stores",
    "external-redis-tls",
    "keda",
    "monitoring",
    "gateway",
    "restricted",
    "minimal",
}


def test_there_is_an_example_of_each_way_to_run_it() -> None:
    assert WAYS - VALUE_SETS.keys() == set()


def test_together_the_examples_render_every_optional_object() -> None:
    kinds = {found["kind"] for values in VALUE_SETS.values() for found in render(values).objects}
    wanted = OPTIONAL - {"PodMonitor"} | {"Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}
    assert wanted - kinds == set()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", VALUE_SETS)
def test_an_example_lints_strictly(name: str, version: str) -> None:
    report = helm_python.lint(CHART, VALUE_SETS[name], strict=True, namespace="chats", kube_version=f"v{version}.0")
    told = [message for message in report["messages"] if message["severity"] >= WARNING]
    assert (told, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_object_of_an_example_is_valid(name: str, version: str) -> None:
    assert [fault for found in example(name).objects for fault in faults(found, version)] == []


def in_digits(values: Object, node: Object) -> Object:
    """These values, with each text that may be any text made a number's."""

    def changed(value: object, inner: Object) -> object:
        inner = resolved(inner)
        if isinstance(value, dict):
            return in_digits(value, inner)
        free = inner.get("type") == "string" and not inner.keys() & {"pattern", "enum"}
        return DIGITS if value and isinstance(value, str) and free else value

    rest = node.get("additionalProperties", {})
    return {key: changed(value, node.get("properties", {}).get(key) or rest or {}) for key, value in values.items()}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_text_of_digits_alone_stays_a_text(name: str) -> None:
    """A namespace may be called 12345, as the one of a pull request is; without quotes YAML would read a number."""
    values = merged(chart().values, VALUE_SETS[name])
    rendered = render({**in_digits(values, schema()), "nameOverride": "", "extraObjects": []}, namespace=DIGITS)
    assert [fault for found in rendered.objects for fault in faults(found, NEWEST)] == []


@pytest.mark.parametrize("name", VALUE_SETS)
def test_no_object_is_there_twice(name: str) -> None:
    titles = [title(found) for found in example(name).objects]
    assert sorted(set(titles)) == sorted(titles)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_object_is_of_the_releases_namespace(name: str) -> None:
    strangers = [
        title(found) for found in example(name).objects if found["metadata"].get("namespace", "chats") != "chats"
    ]
    assert strangers == []


def test_objects_that_a_cluster_may_not_know_are_off_by_default() -> None:
    assert {found["kind"] for found in render().objects} & OPTIONAL == set()


def test_no_template_asks_what_the_cluster_can_do() -> None:
    asking = [file["name"] for file in chart().templates if ".Capabilities" in file["data"]]
    assert asking == []


@pytest.mark.parametrize("name", VALUE_SETS)
def test_only_helm_test_is_a_hook(name: str) -> None:
    hooks = {
        title(found): hook
        for found in example(name).objects
        if (hook := (found["metadata"].get("annotations") or {}).get("helm.sh/hook")) not in (None, "test")
    }
    assert hooks == {}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_nothing_grants_rights_in_the_cluster(name: str) -> None:
    kinds = {found["kind"] for found in example(name).objects}
    assert kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} == set()


def _set(*path: str | int, value: object) -> Callable[[Object], None]:
    """Puts a value at a path."""

    def change(found: Object) -> None:
        holder = found
        for key in path[:-1]:
            holder = holder[key]  # type: ignore[index]  # a list's keys are numbers
        holder[path[-1]] = value  # type: ignore[index]

    return change


BREAKS = [
    ("Deployment", _set("spec", "replica", value=2), "replica"),
    (
        "Deployment",
        _set("spec", "template", "spec", "containers", 0, "imagePullPolice", value="Always"),
        "imagePullPolice",
    ),
    ("Deployment", _set("spec", "template", "spec", "containers", 0, "ports", value="4000"), "4000"),
    ("Service", _set("spec", "ports", 0, "port", value="http"), "http"),
    ("NetworkPolicy", _set("spec", "ingres", value=[]), "ingres"),
    ("ScaledObject", _set("spec", "triggers", 0, "metadata", "listLength", value=3000), "3000"),
    ("ScaledObject", _set("spec", "minReplicas", value=1), "minReplicas"),
    ("TriggerAuthentication", _set("spec", "secretTargetRef", value=[{"name": "x", "key": "y"}]), "parameter"),
    ("ServiceMonitor", _set("spec", "endpoints", 0, "portt", value="metrics"), "portt"),
    ("PrometheusRule", _set("spec", "groups", 0, "rules", 0, "annotation", value={}), "annotation"),
    ("HTTPRoute", _set("spec", "rules", 0, "timeouts", value={"request": "1 hour"}), "1 hour"),
]


@pytest.mark.parametrize(("kind", "change", "told"), BREAKS)
def test_an_invalid_object_is_caught(kind: str, change: Callable[[Object], None], told: str) -> None:
    found = next(one for values in VALUE_SETS.values() for one in render(values).of(kind))
    broken = copy.deepcopy(found)
    change(broken)
    for version in (OLDEST, NEWEST):
        assert faults(found, version) == []
        assert any(told in fault for fault in faults(broken, version))


def test_a_key_that_stands_twice_in_an_object_is_caught() -> None:
    with pytest.raises(Exception, match="twice in one object"):
        documents("metadata:\n  name: a\n  name: b\n")
