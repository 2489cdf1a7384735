"""The body of POST /v1/chat/completions, and the turn that it asks for in the words of POST /v1/responses."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from api.ids import CONVERSATION, is_id
from api.schemas.chat_messages import Message
from api.schemas.conversations import Body, Metadata, few
from api.schemas.options import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningOptions,
    StreamOptions,
    TextFormat,
    TextOptions,
)
from api.schemas.parts import TEXT_OR_LIST, TEXT_OR_OBJECT, Json, Many, Model, type_tag
from api.schemas.responses import MOST_INPUT_ITEMS, CreateResponse
from api.schemas.tools import MOST_TOOLS, AllowedTools, FunctionChoice, FunctionTool, ToolMode, check_tool_choice
from api.schemas.wording import refused

# What OpenAI allows.
MOST_STOPS = 4
MOST_BIASES = 300
# Where a stored completion names its conversation.
NAMED_IN = "conversation"

Stop = Annotated[str, Field(min_length=1, max_length=1024)]
TokenId = Annotated[str, Field(max_length=16)]


class ChatFunction(FunctionTool):
    """The same fields, one level deeper."""

    type: Literal["function"] = "function"


class ChatTool(Model):
    type: Literal["function"]
    function: ChatFunction


class ChatChosenFunction(FunctionChoice):
    type: Literal["function"] = "function"


class ChatChoice(Model):
    type: Literal["function"]
    function: ChatChosenFunction


class ChatAllowedFunctions(Model):
    mode: Literal["auto", "required"]
    tools: Annotated[Many[ChatChoice], Field(min_length=1, max_length=MOST_TOOLS)]


class ChatAllowedChoice(Model):
    type: Literal["allowed_tools"]
    allowed_tools: ChatAllowedFunctions


ToolChoice = Annotated[
    Annotated[ToolMode, Tag("@text")]
    | Annotated[
        Annotated[
            Annotated[ChatChoice, Tag("@function")] | Annotated[ChatAllowedChoice, Tag("@allowed_tools")],
            Discriminator(type_tag),
        ],
        Tag("@object"),
    ],
    TEXT_OR_OBJECT,
]


class ChatSchema(JsonSchemaFormat):
    type: Literal["json_schema"] = "json_schema"


class ChatSchemaFormat(Model):
    type: Literal["json_schema"]
    json_schema: ChatSchema


Format = Annotated[
    Annotated[TextFormat, Tag("@text")]
    | Annotated[JsonObjectFormat, Tag("@json_object")]
    | Annotated[ChatSchemaFormat, Tag("@json_schema")],
    Discriminator(type_tag),
]


class ChatStreamOptions(StreamOptions):
    include_usage: bool | None = None


class ChatTurn(CreateResponse):
    """A turn whose input came as messages, with what only chat-completions servers can be asked for."""

    items: list[Json]
    only_chat: Json

    def new_items(self) -> list[Json]:
        return list(self.items)

    @property
    def further(self) -> Json:
        return self.only_chat


class CreateChatCompletion(Body):
    """OpenAI's parameters; what this service can't do is refused, not ignored."""

    messages: Annotated[Many[Message], Field(min_length=1, max_length=MOST_INPUT_ITEMS)]
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    metadata: Metadata | None = None
    tools: Annotated[Many[ChatTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stop: (
        Annotated[
            Annotated[Stop, Tag("@text")] | Annotated[Many[Stop], Field(max_length=MOST_STOPS), Tag("@list")],
            TEXT_OR_LIST,
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], few(MOST_BIASES)] | None = None
    response_format: Format | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    modalities: Many[Literal["text"]] | None = None
    safety_identifier: Annotated[str, Field(max_length=128)] | None = None
    # Hints without an effect on what is answered.
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=1024)] | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Json | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        conversation = (self.metadata or {}).get(NAMED_IN, "")
        if conversation and not (conversation.startswith(CONVERSATION) and is_id(conversation)):
            message = "Invalid 'metadata.conversation': expected the id of a conversation."
            raise refused("invalid_value", message, f"metadata.{NAMED_IN}")
        if conversation and not self.store:
            message = "'metadata.conversation' needs 'store': true. Without it the conversation would not be used."
            raise refused("missing_required_parameter", message, "store")
        if self.stream_options is not None and not self.stream:
            message = "'stream_options' is only allowed together with 'stream': true."
            raise refused("invalid_value", message, "stream_options")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            message = "'max_tokens' and 'max_completion_tokens' exclude each other. Send the second alone."
            raise refused("mutually_exclusive_parameters", message, "max_tokens")
        check_tool_choice(self._choice(), self._tools())
        return self

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def turn(self) -> ChatTurn:
        """Stored only with a conversation: without one nothing that this endpoint offers could read it again."""
        conversation = (self.metadata or {}).get(NAMED_IN) or None
        only_chat = {"stop": self.stop, "seed": self.seed, "logit_bias": self.logit_bias}
        return ChatTurn.model_construct(
            items=[item for message in self.messages for item in message.items()],
            only_chat={name: value for name, value in only_chat.items() if value is not None},
            model=self.model,
            conversation=conversation,
            store=conversation is not None,
            stream=bool(self.stream),
            metadata=self.metadata,
            tools=self._tools(),
            tool_choice=self._choice(),
            parallel_tool_calls=self.parallel_tool_calls,
            max_output_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            text=TextOptions.model_construct(format=self._format(), verbosity=self.verbosity),
            reasoning=ReasoningOptions.model_construct(effort=self.reasoning_effort) if self.reasoning_effort else None,
            safety_identifier=self.safety_identifier,
        )

    def _tools(self) -> list[FunctionTool]:
        return [tool.function for tool in self.tools or []]

    def _choice(self) -> ToolMode | FunctionChoice | AllowedTools | None:
        match self.tool_choice:
            case ChatChoice(function=function):
                return function
            case ChatAllowedChoice(allowed_tools=allowed):
                tools: list[FunctionChoice] = [choice.function for choice in allowed.tools]
                return AllowedTools(type="allowed_tools", tools=tools, mode=allowed.mode)
            case mode:
                return mode

    def _format(self) -> TextFormat | JsonObjectFormat | JsonSchemaFormat | None:
        wanted = self.response_format
        return wanted.json_schema if isinstance(wanted, ChatSchemaFormat) else wanted
