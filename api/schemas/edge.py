"""From raw bytes to a checked body, or to an error that names the field."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from api.errors import ApiError, invalid

M = TypeVar("M", bound=BaseModel)

LIST_LIMIT = 100
DEFAULT_LIMIT = 20
# jsonb and every client can hold these; beyond them numbers change silently.
SMALLEST_INT, LARGEST_INT = -(2**63), 2**64 - 1
DEEPEST = 100
TOO_LONG = {
    "String": ("string_above_max_length", "characters"),
    "List": ("array_above_max_length", "entries"),
    "Dictionary": ("object_above_max_properties", "pairs"),
}


def parse(model: type[M], raw: bytes) -> M:
    """The body as `model`; raises ApiError 400 with the first thing that is wrong with it."""
    if b"\\u0000" in raw:
        _refuse_bad_text(raw)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise _first(error.errors(include_url=False)[0], raw) from error


def _first(details: ErrorDetails, raw: bytes) -> ApiError:
    param = path_text(part for part in details["loc"] if not (isinstance(part, str) and part.startswith("@")))
    kind, context = details["type"], details.get("ctx", {})
    shown = f"'{param}'" if param else "The body"
    match kind:
        case "json_invalid":
            if "surrogate" in details["msg"]:
                _refuse_bad_text(raw)
            return invalid("invalid_json", f"The body is no valid JSON: {context.get('error', 'syntax')}.", None)
        case "missing" | "union_tag_not_found":
            what = "is required" if kind == "missing" else "must be an object with a type"
            return invalid("missing_required_parameter", f"{shown} {what}.", param)
        case "extra_forbidden":
            return invalid("unknown_parameter", f"{shown} is not supported. Remove it.", param)
        case "string_too_long" | "too_long":
            code, unit = TOO_LONG[context.get("field_type", "String")]
            return invalid(code, f"{shown} is too long: at most {context['max_length']} {unit} are allowed.", param)
        case "union_tag_invalid":
            tags = str(context["expected_tags"]).replace("@", "")
            return invalid("invalid_value", f"'{param}.type' must be one of {tags}.", f"{param}.type")
    wrong_type = kind.endswith("_type") or kind == "int_from_float"
    return invalid(
        "invalid_type" if wrong_type else "invalid_value", f"{shown}: {_sentence(details['msg'])}", param or None
    )


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message if message.endswith(".") else f"{message}."


def path_text(parts: Iterator[str | int]) -> str:
    """('input', 0, 'content') as OpenAI writes it: input[0].content."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _refuse_bad_text(raw: bytes) -> None:
    """Raise ApiError for a NUL or a lone surrogate; an escaped backslash before `u0000` is neither."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return  # the real parser says what is wrong
    for path, text in _strings(body, ()):
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            param = path_text(iter(path))
            message = f"'{param}' holds a NUL or half of a surrogate pair, which no store can keep. Remove it."
            raise invalid("invalid_value", message, param or None)


def _strings(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:  # noqa: ANN401
    match value:
        case str():
            yield path, value
        case list():
            for index, member in enumerate(value):
                yield from _strings(member, (*path, index))
        case dict():
            for key, member in value.items():
                yield path, key
                yield from _strings(member, (*path, key))


def check_free_form(value: Any, depth: int = 0) -> None:  # noqa: ANN401 - free-form JSON is anything
    """Raise ValueError for JSON that can't be kept and given back unchanged."""
    if depth > DEEPEST:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    if isinstance(value, int) and not SMALLEST_INT <= value <= LARGEST_INT:
        raise ValueError("holds an integer of more than 64 bits; send it as a string")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that JSON does not have (NaN or infinite)")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            check_free_form(member, depth + 1)


@dataclass(frozen=True, slots=True)
class ListQuery:
    after: str | None
    limit: int
    order: str


def parse_list_query(query: Mapping[str, str]) -> ListQuery:
    """`after`, `limit` (1-100, 20) and `order` (desc) of a list; raises ApiError 400."""
    limit_text = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit_text.isascii() and limit_text.isdecimal() and 1 <= int(limit_text[:9]) <= LIST_LIMIT):
        _refuse("limit", f"must be a whole number from 1 to {LIST_LIMIT}")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        _refuse("order", "must be 'asc' or 'desc'")
    after = query.get("after") or None
    if after is not None and "\x00" in after:
        _refuse("after", "must be the id of an item")
    return ListQuery(after, int(limit_text), order)


def _refuse(param: str, why: str) -> NoReturn:
    raise invalid("invalid_value", f"'{param}' {why}.", param)
