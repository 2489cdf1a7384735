"""What clients send, described by the very models that check it."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.openapi.notation import NOTHING, Json, either
from api.schemas.chat import CreateChatCompletion
from api.schemas.client_events import ResponseCreateEvent
from api.schemas.conversations import Body, CreateConversation, CreateItems, UpdateConversation
from api.schemas.responses import CompactHistory, CreateResponse

BODIES: Sequence[type[Body]] = (
    CreateResponse,
    ResponseCreateEvent,
    CompactHistory,
    CreateConversation,
    UpdateConversation,
    CreateItems,
    CreateChatCompletion,
)
# What a client may leave unsaid it may also send as null.
NULL_IS_UNSAID = ("store", "stream", "background")


def components() -> dict[str, Json]:
    """The bodies and all that they are made of, by name."""
    models: list[tuple[type[BaseModel], Any]] = [(body, "validation") for body in BODIES]
    _, schema = models_json_schema(models, ref_template="#/components/schemas/{model}")
    found: dict[str, Json] = _plain(schema["$defs"])
    for body in BODIES:
        shape = found[body.__name__]
        # The model takes any field in, to name the first that nobody knows in its refusal.
        shape["additionalProperties"] = False
        for name in NULL_IS_UNSAID:
            if field := shape["properties"].get(name):
                shape["properties"][name] = either({**field}, NOTHING)
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Without the titles that only repeat names; and a union here means any of its members: items overlap."""
    match value:
        case dict():
            return {
                "anyOf" if name == "oneOf" else name: _plain(member)
                for name, member in value.items()
                if not (name == "title" and isinstance(member, str)) and not (name == "default" and member is None)
            }
        case list():
            return [_plain(member) for member in value]
        case _:
            return value
