"""Our own OpenAPI document: sound, told in the documentation too, and served. test_architecture.py sees it complete."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from api.openapi.document import document
from api.openapi.failures import CODES
from api.openapi.response import EVENTS
from local.parts import ROOT
from tests.documented import read_document, validate
from tests.running import Service

pytestmark = pytest.mark.anyio

EVENT_NAME = re.compile(r"response\.[a-z_.]*[a-z]")


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for member in value.values():
                yield from references(member)
        case list():
            for member in value:
                yield from references(member)


def operations() -> Iterator[tuple[str, str, Any]]:
    for path, methods in read_document()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.mark.parametrize("status", CODES)
def test_every_code_is_in_the_documentation(status: int) -> None:
    rows = [line for line in (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    text = "".join(row for row in rows if re.match(rf"\|[ \d,]*\b{status}\b", row))
    missing = [code for code in CODES[status] if f"`{code}`" not in text]
    assert not missing


def test_every_endpoint_has_its_row_with_a_test_of_the_sdk() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = text.partition("## With the official SDK")[2].partition("\n## ")[0]
    told = {(method.lower(), path) for method, path in re.findall(r"^\| `([A-Z]+) (/\S+)` \|", rows, re.MULTILINE)}
    assert told == {(method, path) for method, path, _ in operations() if path.startswith("/v1/")}
    tests = re.findall(r"`(test_\w+\.py)::(test_\w+)` \|$", rows, re.MULTILINE)
    assert len(tests) == rows.count("\n| ") - 1, "a row without a test"
    missing = [
        name for file, name in tests if f"def {name}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert not missing


def test_every_event_is_told() -> None:
    """Names of events stand in the turn's source, some as a head and an end."""
    named: set[str] = set()
    for path in (ROOT / "api" / "turn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes | str):
                text = node.value.decode() if isinstance(node.value, bytes) else node.value
                named |= {text} if EVENT_NAME.fullmatch(text) else set()
    heads = {name for name in named if f"{name}.delta" in EVENTS}
    ends = {f"{head}{end}" for head in heads for end in (".delta", ".done")}
    assert (named - heads) | ends | {"error"} == EVENTS.keys()


def test_the_document_is_sound() -> None:
    """Every reference has a target and everything is referred to; names are unique; schemas are schemas."""
    whole = read_document()
    components = whole["components"]
    targets = {
        f"#/components/{kind}/{name}" for kind in ("headers", "responses", "schemas") for name in components[kind]
    }
    used = set(references(whole))
    assert used <= targets
    # A wrong method is answered so everywhere, so no endpoint names it.
    assert targets - used == {"#/components/responses/MethodNotAllowed"}
    for schema in components["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    assert {operation["tags"][0] for _, _, operation in operations()} == {tag["name"] for tag in whole["tags"]}
    for _, path, operation in operations():
        in_path = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))


def test_every_example_is_valid() -> None:
    seen = 0
    for _, _, operation in operations():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            validate(content["schema"]["$ref"].rpartition("/")[2], example["value"])
            seen += 1
    for answer in read_document()["components"]["responses"].values():
        validate("Error", answer["content"]["application/json"]["example"])
    assert seen >= 8


async def test_it_is_served_without_a_key(service: Service) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{service.url[:-3]}/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.read() == document()
