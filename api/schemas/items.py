"""Input items: what clients may send, and the form in which each is stored and given back."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from api.ids import new_id
from api.schemas.edge import check_free_form
from api.schemas.parts import InputContent, InputPart, Json, Many, Model, OutputContent, OutputPart, Text

Status = Literal["in_progress", "completed", "incomplete"] | None
# The specification says 64, and has a pattern for names. But what a client got as output must be good input, and
# providers make longer ids (some hide a signature in them) and models call what they like.
CallId = Annotated[str, Field(min_length=1, max_length=65536)]
CalledName = Annotated[str, Field(min_length=1, max_length=1024)]


def _ended(status: Status) -> str:
    """Nobody works on what a client brings."""
    return "incomplete" if status == "incomplete" else "completed"


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
        status = _ended(self.status)
        item = {"id": new_id("msg_"), "type": "message", "status": status, "role": "assistant", "content": parts}
        return item if self.phase is None else {**item, "phase": self.phase}


class FunctionCall(Model):
    type: Literal["function_call"]
    call_id: CallId
    name: CalledName
    arguments: Text
    status: Status = None

    def stored(self) -> Json:
        return {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": _ended(self.status),
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
            "status": _ended(self.status),
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
    summary: Many[SummaryText]
    content: Many[ReasoningText] | None = None
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
