"""How an answer is to be made: its format, its reasoning, what is left of a long history."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from api.schemas.edge import check_free_form
from api.schemas.parts import Json, Model, Name, Text, type_tag

LEAST_THRESHOLD = 1000

# What images were sent is always told, log probabilities where the provider tells them; only providers that speak the
# Responses API encrypt their reasoning; the others belong to tools that are not here, so there is nothing to include.
Includable = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


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


class Compact(Model):
    type: Literal["compaction"]
    # Below it a summary is hardly shorter than what it stands for.
    compact_threshold: Annotated[int, Field(ge=LEAST_THRESHOLD, le=2**31 - 1)]


class StreamOptions(Model):
    include_obfuscation: bool | None = None
