"""What the chart makes of values, as Helm itself renders it, and what the tests of the chart look at."""

import copy
import functools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "chatbot"
NAME, NAMESPACE = "demo", "chats"
FULLNAME = "demo-chatbot"

# What YAML and JSON are: only who reads a value knows its type.
Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")


class _Loader(yaml.CSafeLoader):
    """Refuses a key that is there twice: Kubernetes would take the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"twice in one object: {sorted(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


@functools.cache
def documents(text: str) -> list[Object]:
    """Parsed once, since most files are the same from one set of values to the next; so nobody may change them."""
    return [document for document in yaml.load_all(text, _Loader) if document is not None]


@dataclass(frozen=True)
class Rendered:
    """All objects of a release, and what NOTES.txt says to who has installed it."""

    objects: list[Object]
    notes: str

    def of(self, kind: str, component: str | None = None) -> list[Object]:
        """The objects of this kind, or those of them that belong to one component."""
        return [
            found
            for found in self.objects
            if found["kind"] == kind and component in (None, labels(found).get("app.kubernetes.io/component"))
        ]

    def one(self, kind: str, component: str | None = None) -> Object:
        found = self.of(kind, component)
        assert len(found) == 1, f"{len(found)} {kind} of {component or 'all components'}, not one"
        return found[0]

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Each workload with its pod template, the pods of tests too."""
        for found in self.objects:
            if found["kind"] in WORKLOADS:
                yield title(found), pod_of(found)

    def pod(self, component: str) -> Object:
        """The one pod template of a component."""
        found = [pod for _, pod in self.pods() if component == labels(pod).get("app.kubernetes.io/component")]
        assert len(found) == 1, f"{len(found)} pods of {component}, not one"
        return found[0]


def title(found: Object) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


def labels(found: Object) -> dict[str, str]:
    return found["metadata"].get("labels") or {}


def pod_of(workload: Object) -> Object:
    match workload["kind"]:
        case "Pod":
            return workload
        case "CronJob":
            template: Object = workload["spec"]["jobTemplate"]["spec"]["template"]
        case _:
            template = workload["spec"]["template"]
    return template


def containers(pod: Object) -> list[Object]:
    """All of them: those that only start a pod count as much as the others."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def nodes(node: object) -> Iterator[Object]:
    """Every map in an object, however deep."""
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(value)


def environment(container: Object) -> dict[str, Object]:
    return {entry["name"]: entry for entry in container.get("env", [])}


def merged(*layers: Object) -> Object:
    """Values over values, as `-f a -f b` does it."""
    result: Object = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if isinstance(below, dict) and isinstance(value, dict):
                result[key] = merged(below, value)
            else:
                result[key] = copy.deepcopy(value)
    return result


def at(path: str, value: Any) -> Object:
    """`at("api.replicas", 3)`: values with this one."""
    return functools.reduce(lambda inner, key: {key: inner}, reversed(path.split(".")), value)


@functools.cache
def chart(folder: Path = CHART) -> helm_python.Chart:
    return helm_python.Chart.load(folder)


def value_sets() -> dict[str, Object]:
    """The chart's own examples of values by name; each stands for a way of running it."""
    return {
        path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    }


VALUE_SETS = value_sets()


def render(
    *layers: Object, name: str = NAME, namespace: str = NAMESPACE, revision: int = 1, folder: Path = CHART
) -> Rendered:
    """Render offline: no cluster is asked, so `lookup` finds nothing."""
    files = chart(folder).render(
        merged(*layers),
        name=name,
        namespace=namespace,
        revision=revision,
        is_install=revision == 1,
        is_upgrade=revision > 1,
    )
    return from_files(files)


@functools.cache
def example(name: str) -> Rendered:
    """What one of the chart's examples makes; rendered once, so nobody may change it."""
    return render(VALUE_SETS[name])


def from_files(files: dict[str, str]) -> Rendered:
    objects: list[Object] = []
    notes = ""
    for path, text in sorted(files.items()):
        if path.endswith("/NOTES.txt"):
            notes += text
        elif path.endswith((".yaml", ".yml")):
            objects += documents(text)
    return Rendered(objects, notes)


def refusal(*layers: Object, folder: Path = CHART) -> str:
    """Why the chart refuses these values; it must."""
    try:
        render(*layers, folder=folder)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError("these values were accepted")
