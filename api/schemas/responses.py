"""The body of POST /v1/responses."""

from typing import Annotated, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator, model_validator

from api.schemas.conversations import Body, Metadata
from api.schemas.items import InputMessage, Item
from api.schemas.options import Compact, Includable, JsonSchemaFormat, ReasoningOptions, StreamOptions, TextOptions
from api.schemas.parts import TEXT_OR_LIST, TEXT_OR_OBJECT, Json, Many, Model, Text
from api.schemas.tools import MOST_TOOLS, FunctionTool, ToolChoice, check_tool_choice
from api.schemas.wording import refused

MOST_INPUT_ITEMS = 2000
MOST_LOGPROBS = 20

ConversationId = Annotated[str, Field(max_length=128, pattern="^conv_[A-Za-z0-9_-]+$")]
ResponseId = Annotated[str, Field(max_length=128, pattern="^resp_[A-Za-z0-9_-]+$")]


ModelName = Annotated[str, Field(min_length=1, max_length=256)]
Input = Annotated[
    Annotated[Text, Tag("@text")] | Annotated[Many[Item], Field(max_length=MOST_INPUT_ITEMS), Tag("@list")],
    TEXT_OR_LIST,
]


class ConversationParam(Model):
    id: ConversationId


class CreateResponse(Body):
    """OpenAI's parameters; what this service can't do is refused, not ignored."""

    model: ModelName | None = None
    input: Input | None = None
    conversation: (
        Annotated[
            Annotated[ConversationId, Tag("@text")] | Annotated[ConversationParam, Tag("@object")], TEXT_OR_OBJECT
        ]
        | None
    ) = None
    previous_response_id: ResponseId | None = None
    instructions: Text | None = None
    store: bool = True
    stream: bool = False
    stream_options: StreamOptions | None = None
    background: bool = False
    metadata: Metadata | None = None
    include: Many[Includable] | None = None
    tools: Annotated[Many[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=16, le=2**31 - 1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    context_management: Annotated[Many[Compact], Field(min_length=1, max_length=1)] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=64)] | None = None
    # Hints without an effect on what is answered; OpenAI's SDKs and agents send them.
    prompt_cache_retention: str | None = None
    prompt_cache_options: Json | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @field_validator("store", "stream", "background", mode="before")
    @classmethod
    def _null_is_unsaid(cls, value: object, field: ValidationInfo) -> object:
        return cls.model_fields[str(field.field_name)].default if value is None else value

    @model_validator(mode="after")
    def _has_one_history(self) -> "CreateResponse":
        if self.conversation is not None and self.previous_response_id is not None:
            message = "'conversation' and 'previous_response_id' exclude each other: a response has one history."
            raise refused("mutually_exclusive_parameters", message, "previous_response_id")
        if not self.input and self.input != "" and self.conversation is None and self.previous_response_id is None:
            message = "Missing required parameter: 'input'. Without a history there is nothing to answer."
            raise refused("missing_required_parameter", message, "input")
        return self

    @model_validator(mode="after")
    def _can_be_left(self) -> "CreateResponse":
        if self.background and not self.store:
            message = "'background' needs 'store': without it there would be nothing to come back for."
            raise refused("invalid_value", message, "background")
        return self

    @model_validator(mode="after")
    def _chooses_known_tools(self) -> "CreateResponse":
        check_tool_choice(self.tool_choice, self.tools or [])
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
    def further(self) -> Json:
        """What only chat-completions servers can be asked for, in their names."""
        return {}

    @property
    def text_format(self) -> Json | None:
        wanted = self.text.format if self.text else None
        match wanted:
            case JsonSchemaFormat():
                # The specification knows no null here, in what is echoed.
                return {**wanted.model_dump(by_alias=True), "strict": bool(wanted.strict)}
            case None:
                return None
            case _:
                return wanted.model_dump()

    @property
    def compact_threshold(self) -> int | None:
        """The tokens of a question from which on a summary stands for old turns."""
        return self.context_management[0].compact_threshold if self.context_management else None

    @property
    def wanted_logprobs(self) -> int | None:
        """How many likely tokens are told beside each of the answer's; None: nothing of the kind is included."""
        return self.top_logprobs or 0 if "message.output_text.logprobs" in (self.include or ()) else None

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
        return new_items(self.input)


def new_items(given: str | list[Item] | None) -> list[Json]:
    """An input as items of their own ids; a plain string is a user's message."""
    if isinstance(given, str):
        return [InputMessage(role="user", content=given).stored()]
    return [item.stored() for item in given or []]


class CompactHistory(Body):
    """The body of POST /v1/responses/compact."""

    model: ModelName | None = None
    input: Input | None = None
    previous_response_id: ResponseId | None = None
    instructions: Text | None = None
    # Hints, as above.
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Json | None = None

    @model_validator(mode="after")
    def _has_a_history(self) -> "CompactHistory":
        if not self.input and self.previous_response_id is None:
            message = "Missing required parameter: 'input'. Without a history there is nothing to compact."
            raise refused("missing_required_parameter", message, "input")
        return self
