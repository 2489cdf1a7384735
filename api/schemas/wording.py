"""What is told about a body's first mistake: OpenAI's codes and `param`, never the client's own text."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails, PydanticCustomError

from api.errors import ApiError, invalid

LONGEST_PARAM = 200
# A field of its own says what it expects; a union of plain and structured forms says it with `wrong_form`.
WRONG_FORM = "wrong_form"
REFUSED = "refused"

EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}
JSON_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
SIZES = {
    "string_too_long": ("string_above_max_length", "string too long", "max_length", "at most {} characters"),
    "string_too_short": ("string_below_min_length", "string too short", "min_length", "at least {} characters"),
    "too_short": ("array_below_min_length", "array too short", "min_length", "at least {} entries"),
    "greater_than_equal": ("below_min_value", "value too small", "ge", "a value >= {}"),
    "less_than_equal": ("above_max_value", "value too large", "le", "a value <= {}"),
}  # fmt: skip


def refused(code: str, message: str, param: str) -> PydanticCustomError:
    """What a model's own validator raises: a message that is told as it is, `param` below the validator's place."""
    # Braces would be taken for a template.
    return PydanticCustomError(REFUSED, "refused", {"code": code, "message": message, "param": param})


def path_text(parts: Iterable[str | int]) -> str:
    """('input', 0, 'content') as OpenAI writes it: input[0].content."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:LONGEST_PARAM]


def explain(details: ErrorDetails) -> ApiError:
    """One error of pydantic's as ours. A union's tags start with "@", so that they can be kept out of `param`."""
    place = [part for part in details["loc"] if not (isinstance(part, str) and part.startswith("@"))]
    kind, got, context = details["type"], details["input"], details.get("ctx", {})
    if place[-1:] == ["[key]"]:
        param = path_text(place[:-2])
        return invalid("invalid_value", f"Invalid '{param}': a key is longer than {context['max_length']}.", param)
    param = path_text(place)
    if kind in SIZES:
        return _wrong_size(kind, param, got, context)
    if kind in EXPECTED:
        return wrong_type(param, EXPECTED[kind], got)
    return _wrong_value(kind, param, details, context)


def _wrong_value(kind: str, param: str, details: ErrorDetails, context: dict[str, Any]) -> ApiError:
    match kind:
        case "missing":
            return missing(param)
        case "union_tag_not_found":
            return _without_type(param, details["input"])
        case "union_tag_invalid" | "literal_error":
            return _not_among(param, context)
        case "too_long":
            return _too_long(param, context)
        case "refused":
            return invalid(context["code"], context["message"], ".".join(filter(None, (param, context["param"]))))
        case "wrong_form":
            return wrong_type(param, details["msg"], details["input"])
        case "string_pattern_mismatch":
            message = f"Invalid '{param}': expected a string that matches the pattern '{context['pattern']}'."
            return invalid("invalid_value", message, param)
        case _:
            message = str(context["error"]) if kind == "value_error" else details["msg"]
            return invalid("invalid_value", f"Invalid '{param}': {message}.", param)


def _not_among(param: str, context: dict[str, Any]) -> ApiError:
    if tags := context.get("expected_tags"):
        param, values = f"{param}.type", tags.replace("@", "")
    else:
        values = context["expected"].replace("False", "false")
    return invalid("invalid_value", f"Invalid value for '{param}'. Supported values are: {values}.", param)


def missing(param: str) -> ApiError:
    return invalid("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def _without_type(param: str, got: object) -> ApiError:
    if not isinstance(got, dict):
        return wrong_type(param, "an object", got)
    if "type" not in got:
        return missing(f"{param}.type")
    return wrong_type(f"{param}.type", "a string", got["type"])


def wrong_type(param: str, expected: str, got: object) -> ApiError:
    where = f"'{param}'" if param else "the body"
    message = f"Invalid type for {where}: expected {expected}, but got {JSON_NAMES[type(got)]} instead."
    return invalid("invalid_type", message, param or None)


def _too_long(param: str, context: dict[str, Any]) -> ApiError:
    most = context["max_length"]
    if context["field_type"] == "Dictionary":
        message = f"Invalid '{param}': too many properties. Expected an object with at most {most} properties."
        return invalid("object_above_max_properties", message, param)
    message = f"Invalid '{param}': array too long. Expected an array with at most {most} entries."
    return invalid("array_above_max_length", message, param)


def _wrong_size(kind: str, param: str, got: object, context: dict[str, Any]) -> ApiError:
    code, what, limit, expected = SIZES[kind]
    if limit in ("ge", "le"):
        code = f"{'integer' if isinstance(got, int) else 'decimal'}_{code}"
    return invalid(code, f"Invalid '{param}': {what}. Expected {expected.format(context[limit])}.", param)
