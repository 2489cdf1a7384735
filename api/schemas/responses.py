"""The body of POST /v1/responses."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from api.schemas.conversations import Body, Metadata
from api.schemas.edge import check_free_form
from api.schemas.items import InputMessage, Item, Model, Name, Text, type_tag

Json = dict[str, Any]

MOST_INPUT_ITEMS = 2000
MOST_TOOLS = 128

Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
ToolMode = Literal["none", "auto", "required"]


class ConversationParam(Model):
    id: Identifier


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
    tools: Annotated[list[FunctionChoice], Field(min_length=1, max_length=MOST_TOOLS)]
    mode: ToolMode = "auto"


class TextFormat(Model):
    type: Literal["text"]


class JsonObjectFormat(Model):
    type: Literal["json_object"]


class JsonSchemaFormat(Model):
    type: Literal["json_schema"]
    name: Name
    description: Text | None = None
    schema_: Annotated[Json, Field(alias="schema")]
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _keepable(cls, value: Json) -> Json:
        check_free_form(value)
        return value


Format = Annotated[
    Annotated[TextFormat, Tag("@text")]
    | Annotated[JsonObjectFormat, Tag("@json_object")]
    | Annotated[JsonSchemaFormat, Tag("@json_schema")],
    Discriminator(type_tag),
]


class TextOptions(Model):
    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Model):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["concise", "detailed", "auto"] | None = None


class StreamOptions(Model):
    include_obfuscation: bool | None = None


def _form(value: Any) -> str:  # noqa: ANN401 - whatever a client sent
    match value:
        case str():
            return "@text"
        case {"type": "allowed_tools"}:
            return "@allowed_tools"
        case list():
            return "@list"
        case _:
            return "@object"


class CreateResponse(Body):
    """OpenAI's parameters; what this service can't do is refused, not ignored."""

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    input: Annotated[
        Annotated[Text, Tag("@text")]
        | Annotated[list[Item], Field(max_length=MOST_INPUT_ITEMS), Tag("@list")]
        | Annotated[Text, Tag("@object")],
        Discriminator(_form),
    ]
    conversation: (
        Annotated[
            Annotated[Identifier, Tag("@text")]
            | Annotated[ConversationParam, Tag("@object")]
            | Annotated[ConversationParam, Tag("@list")],
            Discriminator(_form),
        ]
        | None
    ) = None
    previous_response_id: Identifier | None = None
    instructions: Text | None = None
    store: bool = True
    stream: bool = False
    stream_options: StreamOptions | None = None
    background: Literal[False] = False
    metadata: Metadata | None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: (
        Annotated[
            Annotated[ToolMode, Tag("@text")]
            | Annotated[AllowedTools, Tag("@allowed_tools")]
            | Annotated[FunctionChoice, Tag("@object")]
            | Annotated[FunctionChoice, Tag("@list")],
            Discriminator(_form),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=16, le=2**31 - 1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    top_logprobs: Literal[0] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=64)] | None = None
    # Hints without an effect on what is answered; OpenAI's SDKs and agents send them.
    prompt_cache_retention: str | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "CreateResponse":
        if self.conversation is not None and self.previous_response_id is not None:
            raise ValueError("conversation and previous_response_id exclude each other: a response has one history")
        names = {tool.name for tool in self.tools or []}
        match self.tool_choice:
            case FunctionChoice(name=name) if name not in names:
                raise ValueError(f"tool_choice names '{name}', which is none of the tools")
            case AllowedTools(tools=tools):
                for tool in tools:
                    if tool.name not in names:
                        raise ValueError(f"tool_choice names '{tool.name}', which is none of the tools")
        return self

    @property
    def conversation_id(self) -> str:
        match self.conversation:
            case None:
                return ""
            case ConversationParam(id=known):
                return known
            case str() as known:
                return known

    @property
    def text_format(self) -> Json | None:
        wanted = self.text.format if self.text else None
        return None if wanted is None else wanted.model_dump(by_alias=True)

    @property
    def verbosity(self) -> str | None:
        return self.text.verbosity if self.text else None

    @property
    def echoed_tools(self) -> list[Json]:
        return [tool.model_dump() for tool in self.tools or []]

    @property
    def echoed_tool_choice(self) -> str | Json:
        choice = self.tool_choice or "auto"
        return choice if isinstance(choice, str) else choice.model_dump()

    def new_items(self) -> list[Json]:
        """The input as items of their own ids; a plain string is a user's message."""
        if isinstance(self.input, str):
            return [InputMessage(role="user", content=self.input).stored()]
        return [item.stored() for item in self.input]
