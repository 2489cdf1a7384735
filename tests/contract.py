"""Open Responses' own schemas, and the order that a stream must keep, as assertions for every other test.

The specification is a file beside the checkout or the one that OPEN_RESPONSES_SPEC names. Without it, a test that asks
for a validation is skipped and says so. Where the specification is at odds with itself:

- A response format `json_schema` allows only null as its `schema`. We echo the schema that the client gave.
- `oneOf` with a discriminator means "the branch with this value". Read literally, several branches may match at once.
"""

import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

Json = Mapping[str, Any]

BESIDE = Path(__file__).parents[2] / "shared" / "openapi" / "open-responses.json"
TERMINAL = {
    "response.completed": {"completed"},
    "response.failed": {"failed"},
    # The specification has no event for a cancelled response: it ends as one that is not whole.
    "response.incomplete": {"incomplete", "cancelled"},
}
# The events of one kind of text: its delta, its end and the field in which the end holds the whole.
TEXTS = {
    "response.output_text.delta": ("response.output_text.done", "text"),
    "response.refusal.delta": ("response.refusal.done", "refusal"),
    "response.reasoning.delta": ("response.reasoning.done", "text"),
    "response.reasoning_summary_text.delta": ("response.reasoning_summary_text.done", "text"),
}
ENDS = dict(TEXTS.values())


def validate_response(response: Json) -> None:
    _validate("ResponseResource", response)


def validate_compaction(compaction: Json) -> None:
    _validate("CompactResource", compaction)


def validate_websocket_error(event: Json) -> None:
    _validate("WebSocketErrorEvent", event)


def validate_item(item: Json) -> None:
    _validate("ItemField", item)


def validate_event(event: Json) -> None:
    kind = event.get("type")
    schemas = _event_schemas()
    assert kind in schemas, f"the specification knows no event {kind!r}"
    _validate(schemas[kind], event)


def validate_stream(events: Sequence[Json], *, first: int = 0, gap: bool = False) -> Json:
    """Check each event, and all of them as one whole stream; returns the final response.

    Sequence numbers go up by one from `first`; with `gap`, for a response that was closed for a dead process, they
    may jump once.
    """
    for event in events:
        validate_event(event)
    _check_numbers([event["sequence_number"] for event in events], first, gap=gap)
    body = _check_frame(events)
    final: Json = events[-1]["response"]
    stream = _Stream()
    for event in body:
        stream.take(event)
    stream.check_end(final)
    return final


def _check_numbers(numbers: list[int], first: int, *, gap: bool) -> None:
    assert numbers[:1] == [first], f"the first sequence number is {numbers[:1]}, not {first}"
    jumps = [pair for pair in itertools.pairwise(numbers) if pair[1] != pair[0] + 1]
    assert all(after > before for before, after in jumps), f"sequence numbers go back: {jumps}"
    assert len(jumps) <= gap, f"sequence numbers jump: {jumps}"


def _check_frame(events: Sequence[Json]) -> Sequence[Json]:
    """The first events and the last one; returns those between them."""
    kinds = [event["type"] for event in events]
    opening = 3 if kinds[1:2] == ["response.queued"] else 2
    wanted = ["response.created", "response.queued", "response.in_progress"]
    assert kinds[:opening] == (wanted if opening == len(wanted) else [wanted[0], wanted[2]]), kinds[:opening]
    ends = [index for index, kind in enumerate(kinds) if kind in TERMINAL]
    assert ends == [len(kinds) - 1], f"terminal events at {ends} of {len(kinds)}"
    final = events[-1]["response"]
    assert final["status"] in TERMINAL[kinds[-1]], f"{kinds[-1]} says that the status is {final['status']}"
    for event in events[:opening]:
        assert event["response"]["id"] == final["id"]
        assert event["response"]["status"] in ("queued", "in_progress")
        assert event["response"]["output"] == []
    return events[opening:-1]


class _Item:
    """An output item as its events have told of it so far."""

    def __init__(self, added: Json) -> None:
        self.added = added
        self.parts: list[Json] = []
        self.summary: list[Json] = []
        self.annotations: list[Json] = []
        self.pieces: list[str] | None = None
        self.ended: str | None = None
        self.done: Json | None = None

    def end_text(self, whole: str) -> None:
        assert self.ended is None, "a text ended twice"
        said = "".join(self.pieces or [])
        assert said == whole, f"the deltas say {said!r}, the end says {whole!r}"
        self.ended = whole

    def open_part(self, event: Json) -> None:
        assert self.pieces is None, "a part was opened before the one before it was done"
        self.check_index(event)
        self.pieces, self.annotations, self.ended = [], [], None

    def check_index(self, event: Json) -> None:
        """Content and summary are counted apart."""
        index, parts = event.get("content_index"), self.parts
        if index is None:
            index, parts = event["summary_index"], self.summary
        assert index == len(parts), f"index {index} after {len(parts)} parts"

    def end_part(self, event: Json) -> None:
        part = event["part"]
        assert self.ended == part.get("text", part.get("refusal")), "the part differs from its text"
        assert part.get("annotations", []) == self.annotations, "the part differs from its annotations' events"
        (self.summary if "summary_index" in event else self.parts).append(part)
        self.pieces = None

    def end(self, item: Json) -> None:
        for name in ("id", "type", "role", "call_id", "name"):
            assert self.added.get(name) == item.get(name), f"{name} changed between added and done"
        if item["type"] == "function_call":
            assert self.ended == item["arguments"], "the call differs from its arguments' events"
        elif item["type"] == "compaction":
            assert self.added == item, "a compaction comes at once"
        else:
            assert self.pieces is None, "an item was done before its part"
            assert self.parts == item["content"], "the item differs from its parts"
            assert self.summary == item.get("summary", []), "the item differs from its summary's parts"
        assert item.get("status") != "in_progress", "an item was done while in progress"
        self.done = item


class _Stream:
    """What lies between the opening and the terminal event."""

    def __init__(self) -> None:
        self._items: list[_Item] = []

    def take(self, event: Json) -> None:
        kind, index = event["type"], event.get("output_index")
        assert index is not None, f"{kind} in the middle of the stream"
        if kind == "response.output_item.added":
            assert index == len(self._items), f"output index {index} after {len(self._items)} items"
            assert event["item"].get("status") in (None, "in_progress"), "an item was added that is not in progress"
            assert not event["item"].get("content"), "an item was added with its content"
            self._items.append(_Item(event["item"]))
            return
        assert index < len(self._items), f"{kind} for the item {index}, which was never added"
        item = self._items[index]
        assert item.done is None, f"{kind} for an item that was done"
        assert event.get("item_id") in (None, item.added["id"]), f"{kind} names another item"
        self._grow(item, event)

    @staticmethod
    def _grow(item: _Item, event: Json) -> None:
        match event["type"]:
            case "response.output_item.done":
                item.end(event["item"])
            case "response.content_part.added" | "response.reasoning_summary_part.added":
                item.open_part(event)
            case "response.content_part.done" | "response.reasoning_summary_part.done":
                item.end_part(event)
            case "response.output_text.annotation.added":
                assert event["annotation_index"] == len(item.annotations), "an annotation out of order"
                item.annotations.append(event["annotation"])
            case "response.function_call_arguments.delta":
                item.pieces = [*(item.pieces or []), event["delta"]]
            case "response.function_call_arguments.done":
                item.end_text(event["arguments"])
            case kind if kind in TEXTS:
                assert item.pieces is not None, f"{kind} before its part was added"
                assert item.ended is None, f"{kind} after its end"
                item.check_index(event)
                item.pieces.append(event["delta"])
            case kind:
                item.end_text(event[ENDS[kind]])

    def check_end(self, final: Json) -> None:
        assert all(item.done for item in self._items), "the response ended before its items"
        assert [item.done for item in self._items] == final["output"], "the output differs from the items' events"


def _validate(name: str, instance: Json) -> None:
    error = best_match(_validator(name).iter_errors(instance))
    if error is not None:
        # Told without the instance, which may be long: where it is, and what is wrong there.
        raise AssertionError(f"{name}{error.json_path.removeprefix('$')}: {error.message[:500]}")


@functools.cache
def _specification() -> dict[str, Any]:
    path = Path(os.environ.get("OPEN_RESPONSES_SPEC") or BESIDE)
    if not path.is_file():
        # It belongs to others and is not in this repository. A clone without it has nothing to compare with, and says
        # so; where CI runs it lies beside.
        pytest.skip(f"the specification is not at {path}: name its place in OPEN_RESPONSES_SPEC")
    specification: dict[str, Any] = orjson.loads(path.read_bytes())
    formats = specification["components"]["schemas"]["JsonSchemaResponseFormat"]["properties"]
    assert formats["schema"]["anyOf"] == [{"type": "null"}], "the specification was mended: take this exception out"
    formats["schema"]["anyOf"].append({"type": "object"})
    return specification


@functools.cache
def _event_schemas() -> dict[str, str]:
    schemas = _specification()["components"]["schemas"]
    return {
        schema["properties"]["type"]["enum"][0]: name
        for name, schema in schemas.items()
        if name.endswith("StreamingEvent")
    }


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    root = {"$ref": f"#/components/schemas/{name}", "components": _specification()["components"]}
    validator: Draft202012Validator = _Validator(root)
    return validator


def _one_of(validator: Any, branches: list[Json], instance: object, schema: Json) -> Iterator[ValidationError]:
    """`oneOf`, where a discriminator chooses the branch by the value that the branch's `enum` names."""
    discriminator = schema.get("discriminator")
    if discriminator is None or not isinstance(instance, dict):
        yield from _plain_one_of(validator, branches, instance, schema)
        return
    name = discriminator["propertyName"]
    schemas = _specification()["components"]["schemas"]
    for branch in branches:
        properties = schemas[branch["$ref"].rpartition("/")[2]]["properties"]
        if instance.get(name) in properties[name].get("enum", ()):
            yield from validator.descend(instance, branch)
            return
    yield ValidationError(f"no branch has the {name} {instance.get(name)!r}")


_plain_one_of = Draft202012Validator.VALIDATORS["oneOf"]
_Validator = extend(Draft202012Validator, {"oneOf": _one_of})  # type: ignore[no-untyped-call] # its stubs lack it
