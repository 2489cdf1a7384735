"""What a turn and an upstream say to each other: one Ask there, lists of deltas back."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the model. `None` means that the client said nothing and the upstream's default holds.

    `items` are Responses items, oldest first, history and new input together; `tools` are function tools in the
    Responses form (`type, name, description, parameters, strict`).
    """

    model: str
    items: list[Json]
    instructions: str | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json = "auto"
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    text_format: Json | None = None
    verbosity: str | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    encrypted_reasoning: bool = False
    """The client wants the model's reasoning in a sealed form, to give it back with its next question."""
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_logprobs: int | None = None
    """How many likely tokens to tell beside each of the answer's; None: not even how likely that was itself."""
    further: Json = field(default_factory=dict)
    """Parameters that only chat-completions servers know (`stop`, `seed`, …), as they are sent."""


class Text(NamedTuple):
    text: str


class Logprobs(NamedTuple):
    """How likely the tokens of the text that comes next were, in the form of the Responses API."""

    tokens: list[Json]


class Reasoning(NamedTuple):
    text: str


class Summary(NamedTuple):
    """A piece of what the model tells of its reasoning; `number` counts the parts of one reasoning item from 0."""

    number: int
    text: str


class Refusal(NamedTuple):
    text: str


class Annotation(NamedTuple):
    """Of the text before it: a `url_citation` of the Responses API."""

    annotation: Json


class ItemEnd(NamedTuple):
    """The message or the reasoning before it is whole; what text follows belongs to another one. Upstreams that know
    no items don't say this. `encrypted_content` is reasoning that the client can't read and gives back."""

    encrypted_content: str | None


class ToolCall(NamedTuple):
    """A piece of a function call. `number` counts the calls of this answer from 0; its first piece brings
    a call id that is never empty and the name; `arguments` is the next piece of the JSON text."""

    number: int
    call_id: str
    name: str
    arguments: str


class Usage(NamedTuple):
    """Tokens, as the provider counted them, or `estimated` where it gave no count."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False

    def plus(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.estimated or other.estimated,
        )


class Count(NamedTuple):
    """What a question would cost in tokens, by the model's own tokenizer, or `estimated`."""

    input_tokens: int
    estimated: bool


class Finish(NamedTuple):
    reason: Literal["stop", "length", "content_filter", "tool_calls"]


Delta = Text | Logprobs | Reasoning | Summary | Refusal | Annotation | ItemEnd | ToolCall | Usage | Finish


class UpstreamError(Exception):
    """The upstream gave no (whole) answer. Raised before the first delta, or in the middle, when text was seen already.

    `status` is the HTTP status that our client gets when nothing was sent yet; `code` and `message` are ours and hold
    nothing of the provider's own text but its error message, shortened; `retry_after_seconds` is the provider's wish.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class Stream(Protocol):
    """An answer that has begun: `first` is what came first, `read` gives what each network read brings (last, Usage and
    Finish) and then an empty list. Who has it closes it."""

    first: list[Delta]

    async def read(self) -> list[Delta]: ...

    def close(self) -> None: ...


class Upstream(Protocol):
    """A server with models. Each call is one try; both ways of asking end with one Usage and one Finish."""

    async def begin(self, ask: Ask) -> Stream: ...

    async def complete(self, ask: Ask) -> list[Delta]: ...

    async def count(self, ask: Ask) -> Count: ...

    async def models(self) -> list[str]: ...

    async def close(self) -> None: ...
