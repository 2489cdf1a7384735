"""From raw bytes to a checked body, or to an error that names the field."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from api.errors import ApiError, invalid
from api.ids import is_id
from api.schemas.wording import explain, path_text

M = TypeVar("M", bound=BaseModel)

LIST_LIMIT = 100
DEFAULT_LIMIT = 20
LONGEST_NUMBER = 16
# jsonb and every client can hold these; beyond them numbers change silently.
SMALLEST_INT, LARGEST_INT = -(2**63), 2**64 - 1
# The JSON encoder ends at 254 levels, and what is kept comes back within some of our own.
DEEPEST = 100
PLAIN = frozenset({str, bool, type(None)})

NUL = b"\\u0000"
# An escape: a whole surrogate pair, half of one (the group), or any other.
ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def parse(model: type[M], raw: bytes) -> M:
    """The body as `model`; raises ApiError 400 with the first thing that is wrong with it."""
    try:
        body = model.model_validate_json(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        if details["type"] == "json_invalid":
            raise _broken(raw, details["ctx"]["error"]) from None
        raise explain(details) from None
    if NUL in raw:
        _refuse_nul(raw)
    return body


def _broken(raw: bytes, why: str) -> ApiError:
    if not raw.strip():
        return invalid("invalid_json", "The body is empty. Send a JSON object.", None)
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return invalid("invalid_json", "The body starts with a byte order mark. Send plain UTF-8 without one.", None)
    try:
        # Half of a pair is the one mistake within a string that has a place in the body: find it as a NUL is found.
        _refuse_nul(ESCAPE.sub(lambda escape: NUL if escape[1] else escape[0], raw))
    except ApiError as error:
        return error
    return invalid("invalid_json", f"The body could not be parsed as JSON: {why}.", None)


def _refuse_nul(raw: bytes) -> None:
    """Raise ApiError for a NUL; an escaped backslash before `u0000` is none."""
    try:
        path = _path_of_nul(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return
    if path is not None:
        param = path_text(path)
        where = f"'{param}'" if param else "the body"
        message = f"Invalid text in {where}: a NUL character or half of a surrogate pair can't be stored. Remove it."
        raise invalid("invalid_value", message, param or None)


def _path_of_nul(value: Any, depth: int = 0) -> list[str | int] | None:  # noqa: ANN401 - whatever a client sent
    members: Iterable[tuple[str | int, Any]] = ()
    match value:
        case str() if "\0" in value:
            return []
        case list():
            members = enumerate(value)
        case dict():
            if any("\0" in key for key in value):
                return []
            members = value.items()
    # What lies deeper is not kept.
    if depth < DEEPEST:
        for key, member in members:
            path = _path_of_nul(member, depth + 1)
            if path is not None:
                return [key, *path]
    return None


def check_free_form(value: Any) -> None:  # noqa: ANN401 - free-form JSON is anything
    """Raise ValueError for JSON that can't be kept and given back unchanged."""
    level = [value]
    for _ in range(DEEPEST):
        level = [member for outer in level for member in _members(outer) if member.__class__ not in PLAIN]
        if not level:
            return
        for member in level:
            if isinstance(member, int) and not SMALLEST_INT <= member <= LARGEST_INT:
                raise ValueError("an integer has more than 64 bits. Send it as a string")
            if isinstance(member, float) and not math.isfinite(member):
                raise ValueError("a number is not finite, which JSON does not have")
    raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def _members(value: Any) -> Any:  # noqa: ANN401 - free-form JSON is anything
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class ListQuery:
    after: str | None
    limit: int
    order: str


def parse_list_query(query: Mapping[str, str]) -> ListQuery:
    """`after`, `limit` (1-100, 20) and `order` (desc) of a list; raises ApiError 400."""
    limit_text = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit_text.isascii() and limit_text.isdecimal() and 1 <= int(limit_text[:9]) <= LIST_LIMIT):
        _refuse("limit", f"expected a whole number from 1 to {LIST_LIMIT}")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        _refuse("order", "supported values are: 'asc' or 'desc'")
    after = query.get("after") or None
    if after is not None and not is_id(after):
        _refuse("after", "expected the id of an item")
    return ListQuery(after, int(limit_text), order)


def parse_resume_query(query: Mapping[str, str]) -> int | None:
    """The number of the first event that a resuming client wants, None when it wants no stream; raises ApiError 400."""
    if query.get("stream", "false") not in ("true", "false"):
        _refuse("stream", "supported values are: 'true' or 'false'")
    after = query.get("starting_after", "-1")
    if after != "-1" and not (after.isascii() and after.isdecimal() and len(after) < LONGEST_NUMBER):
        _refuse("starting_after", "expected the sequence number of an event")
    return int(after) + 1 if query.get("stream") == "true" else None


def _refuse(param: str, why: str) -> NoReturn:
    raise invalid("invalid_value", f"Invalid '{param}': {why}.", param)
