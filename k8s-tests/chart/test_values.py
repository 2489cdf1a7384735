"""values.yaml, its schema and the README say the same: whoever mistypes a value is told so, and by its name."""

from collections.abc import Iterator

import pytest
import yaml

from chart.rendering import CHART, Object, at, chart, nodes, refusal, render, title

# Helm hands `global` to every chart, and a parent chart's condition is `enabled`: neither is ours to explain.
OF_HELM = {"global", "enabled"}
TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")


def leaves(values: Object, path: str = "") -> Iterator[tuple[str, object]]:
    """Each value that a user may set, by its path; an empty map or a list is one."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def schema() -> Object:
    found = chart().schema
    assert found is not None
    return found


def resolved(node: Object) -> Object:
    """A schema's node with what its `$ref` names, which is in the same file."""
    while node.get("$ref", "").startswith("#/"):
        target: Object = schema()
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def described(node: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Each leaf of the schema, by the path of its value."""
    for key, value in node.get("properties", {}).items():
        inner = resolved(value)
        if inner.get("properties"):
            yield from described(inner, f"{path}{key}.")
        else:
            yield f"{path}{key}", inner


def maps(node: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Each map of the schema whose keys are ours."""
    for key, value in node.get("properties", {}).items():
        inner = resolved(value)
        if inner.get("properties"):
            yield f"{path}{key}", inner
            yield from maps(inner, f"{path}{key}.")


LEAVES = dict(leaves(yaml.safe_load(TEXT)))


def typed(path: str) -> bool:
    """Whether the schema says what this value is, or what every value of its map is."""
    node = schema()
    for key in path.split("."):
        rest = node.get("additionalProperties", False)
        node = resolved(node.get("properties", {}).get(key) or (rest if isinstance(rest, dict) else {}))
    return bool({"type", "enum", "const", "oneOf", "anyOf"} & node.keys())


def test_every_value_is_in_the_schema() -> None:
    assert [path for path in LEAVES if not typed(path)] == []


def test_everything_in_the_schema_is_a_value() -> None:
    """Or within one: what may stand in a map that is empty by default."""
    maps_of_values = {path.rpartition(".")[0] for path in LEAVES}
    strange = [
        path
        for path in dict(described(schema()))
        if path not in LEAVES.keys() | maps_of_values | OF_HELM and path.rpartition(".")[0] not in LEAVES
    ]
    assert strange == []


def test_every_value_has_a_comment() -> None:
    lines = TEXT.splitlines()

    def uncommented(node: yaml.Node, path: str = "") -> Iterator[str]:
        for key, value in node.value:
            if isinstance(value, yaml.MappingNode) and value.value:
                yield from uncommented(value, f"{path}{key.value}.")
                continue
            line = key.start_mark.line
            if not lines[line - 1].strip().startswith("# ") and " # " not in lines[line]:
                yield f"{path}{key.value}"

    top = yaml.compose(TEXT, yaml.SafeLoader)
    assert top is not None
    assert list(uncommented(top)) == []


def test_the_schema_refers_to_nothing_outside_of_itself() -> None:
    references = [node["$ref"] for node in nodes(schema()) if "$ref" in node]
    assert [reference for reference in references if not reference.startswith("#/")] == []


def test_an_unknown_key_at_the_top_is_refused_by_its_name() -> None:
    assert "replicaz" in refusal({"replicaz": 3})


@pytest.mark.parametrize("path", dict(maps(schema())))
def test_an_unknown_key_in_a_map_is_refused_by_its_name(path: str) -> None:
    assert "unknownKey" in refusal(at(f"{path}.unknownKey", "x"))


@pytest.mark.parametrize("path", LEAVES)
def test_a_value_of_another_type_is_refused(path: str) -> None:
    wrong = "text" if isinstance(LEAVES[path], dict | list) else [["of another type"]]
    assert path.rpartition(".")[2] in refusal(at(path, wrong))


def test_global_and_enabled_are_accepted_from_a_parent_chart() -> None:
    helms = {"global": {"imageRegistry": "x", "anything": {"else": 1}}, "enabled": True}
    assert {title(found) for found in render(helms).objects} == {title(found) for found in render().objects}
