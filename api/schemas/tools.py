"""Functions that a model may call, and which of them it may or must."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from api.schemas.edge import check_free_form
from api.schemas.parts import TEXT_OR_OBJECT, Json, Many, Model, Name, Text, type_tag
from api.schemas.wording import refused

MOST_TOOLS = 128

ToolMode = Literal["none", "auto", "required"]


class FunctionTool(Model):
    type: Literal["function"]
    name: Name
    description: Text | None = None
    parameters: Json | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _keepable(cls, value: Json | None) -> Json | None:
        check_free_form(value)
        return value


class FunctionChoice(Model):
    type: Literal["function"]
    name: Name


class AllowedTools(Model):
    type: Literal["allowed_tools"]
    tools: Annotated[Many[FunctionChoice], Field(min_length=1, max_length=MOST_TOOLS)]
    mode: ToolMode = "auto"


ToolChoice = Annotated[
    Annotated[ToolMode, Tag("@text")]
    | Annotated[
        Annotated[
            Annotated[FunctionChoice, Tag("@function")] | Annotated[AllowedTools, Tag("@allowed_tools")],
            Discriminator(type_tag),
        ],
        Tag("@object"),
    ],
    TEXT_OR_OBJECT,
]


def check_tool_choice(choice: ToolMode | FunctionChoice | AllowedTools | None, tools: Sequence[FunctionTool]) -> None:
    """Raise for a choice that asks for what is not there."""
    names = {tool.name for tool in tools}
    match choice:
        case "required":
            known = bool(names)
        case FunctionChoice(name=name):
            known = name in names
        case AllowedTools(tools=allowed):
            known = {tool.name for tool in allowed} <= names
        case _:
            known = True
    if not known:
        message = "Invalid 'tool_choice': it asks for a function that is none of the 'tools'."
        raise refused("invalid_value", message, "tool_choice")
