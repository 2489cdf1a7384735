"""How a shape is written down here: JSON Schema 2020-12, as OpenAPI 3.1 takes it, in a few words."""

from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
YES_OR_NO: Json = {"type": "boolean"}
NOTHING: Json = {"type": "null"}
ANY_OBJECT: Json = {"type": "object", "additionalProperties": True}
SECONDS: Json = {"type": "integer", "description": "Seconds since 1970, UTC."}


def told(schema: Json, description: str) -> Json:
    return {**schema, "description": description}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def array(of: Json) -> Json:
    return {"type": "array", "items": of}


def either(*choices: Json) -> Json:
    return {"anyOf": list(choices)}


def or_null(schema: Json) -> Json:
    return either(schema, NOTHING)


def one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def always(value: str | bool) -> Json:
    return {"const": value, "type": "boolean" if isinstance(value, bool) else "string"}


def record(description: str, fields: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    """An object: `fields` are always there, `optional` ones may be missing."""
    return {
        "type": "object",
        "description": description,
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
    }


def by_type(description: str, names: dict[str, str]) -> Json:
    """One of several objects that differ in `type`; `names` goes from the type to the component."""
    mapping = {kind: f"#/components/schemas/{name}" for kind, name in names.items()}
    return {
        "description": description,
        "oneOf": [ref(name) for name in names.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
