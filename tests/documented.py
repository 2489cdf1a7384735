"""Every answer against our own OpenAPI document: its endpoint, status and headers, and no field that is not told."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from api.openapi.document import document
from api.openapi.response import component_of

Json = dict[str, Any]
# An answer to a request that the document can't have: another path, another method.
ANYWHERE = {"unknown_url", "method_not_allowed"}


@functools.cache
def read_document() -> Json:
    read: Json = orjson.loads(document())
    return read


def check_documented(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """A whole answer, with each of its events if it is a stream."""
    kind = headers["content-type"].partition(";")[0]
    answer = orjson.loads(body) if kind == "application/json" else {}
    if status in (404, 405) and answer["error"]["code"] in ANYWHERE:
        validate("Error", answer)
        return
    told = _answers_of(method, path).get(str(status))
    assert told is not None, f"{method} {path} answers {status}, which the document does not tell"
    told = _resolved(told)
    missing = [
        name for name, header in told["headers"].items() if _resolved(header)["required"] and name not in headers
    ]
    assert not missing, f"{method} {path} {status} lacks the headers {missing}"
    assert kind in told["content"], f"{method} {path} {status} is {kind}"
    schema = told["content"][kind]["schema"]
    if kind == "application/json":
        validate(_name(schema), answer)
        return
    if kind == "application/x-ndjson":
        for line in body.splitlines():
            validate(_name(schema), orjson.loads(line))
        return
    name = _name(schema["properties"]["data"]["anyOf"][0]["contentSchema"])
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            event = orjson.loads(line[6:])
            if name == "ResponseStreamEvent":
                check_documented_event(event)
            else:
                validate(name, event)


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def check_documented_event(event: Json) -> None:
    validate(component_of(event["type"]), event)


def validate(name: str, value: object) -> None:
    error = best_match(_validator(name).iter_errors(value))
    if error is not None:
        raise AssertionError(f"openapi.json: {name}{error.json_path.removeprefix('$')}: {error.message[:500]}")


def _answers_of(method: str, path: str) -> Json:
    for template, methods in read_document()["paths"].items():
        if _pattern(template).fullmatch(path) and method.lower() in methods:
            answers: Json = methods[method.lower()]["responses"]
            return answers
    raise AssertionError(f"the document has no {method} {path}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    # A model's id may have slashes, no other parameter.
    escaped = re.escape(template).replace(r"\{model\}", ".+")
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", escaped))


def _resolved(value: Json) -> Json:
    if "$ref" not in value:
        return value
    _, _, kind, name = value["$ref"].split("/")
    found: Json = read_document()["components"][kind][name]
    return found


@functools.cache
def _closed() -> Json:
    schemas: Json = _close(read_document()["components"]["schemas"])
    return schemas


def _close(value: Any) -> Any:
    """With no fields but those that are told; the document itself leaves room for more, as clients should."""
    match value:
        case {"properties": _} if "additionalProperties" not in value:
            return {**{name: _close(member) for name, member in value.items()}, "additionalProperties": False}
        case dict():
            return {name: _close(member) for name, member in value.items()}
        case list():
            return [_close(member) for member in value]
        case _:
            return value


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": _closed()}})
