"""Input items: what clients may send, and the form in which each is stored and given back."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from api.ids import new_id
from api.schemas.edge import check_free_form

Json = dict[str, Any]

LONGEST_TEXT = 10 * 1024 * 1024
LONGEST_IMAGE = 20 * 1024 * 1024
LONGEST_FILE = 32 * 1024 * 1024

Status = Literal["in_progress", "completed", "incomplete"] | None
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
CallId = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]


class Model(BaseModel):
    """JSON types are taken as they are: "1" is no number. What an item has beyond its fields is left out."""

    model_config = ConfigDict(strict=True, extra="ignore")


class InputText(Model):
    type: Literal["input_text"]
    text: Text

    def stored(self) -> Json:
        return {"type": "input_text", "text": self.text}


class InputImage(Model):
    type: Literal["input_image"]
    image_url: Annotated[str, Field(min_length=1, max_length=LONGEST_IMAGE)]
    detail: Literal["auto", "low", "high", "original"] | None = None

    def stored(self) -> Json:
        return {"type": "input_image", "image_url": self.image_url, "detail": self.detail or "auto"}


class InputFile(Model):
    type: Literal["input_file"]
    filename: Annotated[str, Field(max_length=1024)] | None = None
    file_data: Annotated[str, Field(max_length=LONGEST_FILE)] | None = None
    file_url: Text | None = None

    @model_validator(mode="after")
    def _has_content(self) -> "InputFile":
        if not self.file_data and not self.file_url:
            raise ValueError("needs file_data or file_url")
        return self

    def stored(self) -> Json:
        return self.model_dump(exclude_none=True)


class OutputText(Model):
    type: Literal["output_text"]
    text: Text
    annotations: list[Json] | None = None

    @model_validator(mode="after")
    def _keepable(self) -> "OutputText":
        check_free_form(self.annotations)
        return self

    def stored(self) -> Json:
        return {"type": "output_text", "text": self.text, "annotations": self.annotations or [], "logprobs": []}


class RefusalPart(Model):
    type: Literal["refusal"]
    refusal: Text

    def stored(self) -> Json:
        return {"type": "refusal", "refusal": self.refusal}


def type_tag(value: Any) -> str | None:  # noqa: ANN401 - whatever a client sent
    """The tag of a union's member is its type behind an "@", which keeps it out of an error's `param`."""
    kind = value.get("type") if isinstance(value, dict) else None
    return f"@{kind}" if isinstance(kind, str) else None


InputPart = Annotated[
    Annotated[InputText, Tag("@input_text")]
    | Annotated[InputImage, Tag("@input_image")]
    | Annotated[InputFile, Tag("@input_file")],
    Discriminator(type_tag),
]
OutputPart = Annotated[
    Annotated[OutputText, Tag("@output_text")] | Annotated[RefusalPart, Tag("@refusal")], Discriminator(type_tag)
]


def _text_or_list(value: Any) -> str:  # noqa: ANN401 - whatever a client sent
    return "@text" if isinstance(value, str) else "@list"


InputContent = Annotated[
    Annotated[Text, Tag("@text")] | Annotated[list[InputPart], Tag("@list")], Discriminator(_text_or_list)
]
OutputContent = Annotated[
    Annotated[Text, Tag("@text")] | Annotated[list[OutputPart], Tag("@list")], Discriminator(_text_or_list)
]


def _parts(content: str | Sequence[InputPart | OutputPart], text_part: Json) -> list[Json]:
    return [text_part] if isinstance(content, str) else [part.stored() for part in content]


class InputMessage(Model):
    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: InputContent
    status: Status = None

    def stored(self) -> Json:
        parts = _parts(self.content, {"type": "input_text", "text": self.content})
        return {"id": new_id("msg_"), "type": "message", "status": "completed", "role": self.role, "content": parts}


class AssistantMessage(Model):
    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: OutputContent
    status: Status = None
    phase: Literal["commentary", "final_answer"] | None = None

    def stored(self) -> Json:
        text_part = {"type": "output_text", "text": self.content, "annotations": [], "logprobs": []}
        parts = _parts(self.content, text_part)
        status = self.status or "completed"
        item = {"id": new_id("msg_"), "type": "message", "status": status, "role": "assistant", "content": parts}
        return item if self.phase is None else {**item, "phase": self.phase}


class FunctionCall(Model):
    type: Literal["function_call"]
    call_id: CallId
    name: Name
    arguments: Text
    status: Status = None

    def stored(self) -> Json:
        return {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": self.status or "completed",
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
        }


class FunctionCallOutput(Model):
    type: Literal["function_call_output"]
    call_id: CallId
    output: InputContent
    status: Status = None

    def stored(self) -> Json:
        output = self.output if isinstance(self.output, str) else _parts(self.output, {})
        return {
            "id": new_id("fco_"),
            "type": "function_call_output",
            "status": self.status or "completed",
            "call_id": self.call_id,
            "output": output,
        }


class SummaryText(Model):
    type: Literal["summary_text"]
    text: Text


class ReasoningText(Model):
    type: Literal["reasoning_text"]
    text: Text


class Reasoning(Model):
    type: Literal["reasoning"]
    summary: list[SummaryText]
    content: list[ReasoningText] | None = None
    encrypted_content: Text | None = None

    def stored(self) -> Json:
        return {"id": new_id("rs_"), **self.model_dump(exclude_none=True)}


class Compaction(Model):
    type: Literal["compaction"]
    encrypted_content: Text

    def stored(self) -> Json:
        return {"id": new_id("cmp_"), "type": "compaction", "encrypted_content": self.encrypted_content}


class ItemReference(Model):
    """Names an item that is known already; the turn puts that in its place."""

    type: Literal["item_reference"] | None = None
    id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]

    def stored(self) -> Json:
        return {"type": "item_reference", "id": self.id}


class OtherItem(Model):
    """A type that we do not know: kept and given back as it came, but for an id of ours."""

    model_config = ConfigDict(strict=True, extra="allow")
    type: Annotated[str, Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _keepable(self) -> "OtherItem":
        check_free_form(self.model_extra)
        return self

    def stored(self) -> Json:
        return {**self.model_dump(), "id": new_id("item_")}


_KNOWN = ("function_call", "function_call_output", "reasoning", "compaction", "item_reference")


def _item_tag(value: Any) -> str:  # noqa: ANN401 - whatever a client sent
    if not isinstance(value, dict):
        return "@input_message"
    kind = value.get("type")
    if kind in _KNOWN:
        return f"@{kind}"
    if kind is None and "role" not in value and "id" in value:
        return "@item_reference"
    if kind is None or kind == "message":
        return "@assistant_message" if value.get("role") == "assistant" else "@input_message"
    return "@other"


Item = Annotated[
    Annotated[InputMessage, Tag("@input_message")]
    | Annotated[AssistantMessage, Tag("@assistant_message")]
    | Annotated[FunctionCall, Tag("@function_call")]
    | Annotated[FunctionCallOutput, Tag("@function_call_output")]
    | Annotated[Reasoning, Tag("@reasoning")]
    | Annotated[Compaction, Tag("@compaction")]
    | Annotated[ItemReference, Tag("@item_reference")]
    | Annotated[OtherItem, Tag("@other")],
    Discriminator(_item_tag),
]
