"""The messages of POST /v1/chat/completions, and the items that each of them is in a conversation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from api.ids import new_id
from api.schemas.items import CalledName, CallId, FunctionCall
from api.schemas.parts import (
    LONGEST_FILE,
    LONGEST_IMAGE,
    TEXT_OR_LIST,
    InputFile,
    InputImage,
    InputText,
    Json,
    Many,
    Model,
    OutputText,
    RefusalPart,
    Text,
    type_tag,
)
from api.schemas.wording import refused

ParticipantName = Annotated[str, Field(min_length=1, max_length=64)]


class TextPart(Model):
    type: Literal["text"]
    text: Text

    def stored(self) -> Json:
        return InputText(type="input_text", text=self.text).stored()


class ImageUrl(Model):
    url: Annotated[str, Field(min_length=1, max_length=LONGEST_IMAGE)]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Model):
    type: Literal["image_url"]
    image_url: ImageUrl

    def stored(self) -> Json:
        image = InputImage(type="input_image", image_url=self.image_url.url, detail=self.image_url.detail)
        return image.stored()


class FileContent(Model):
    """Files by `file_id` would need a store of files, which this service has not."""

    file_data: Annotated[str, Field(min_length=1, max_length=LONGEST_FILE)]
    filename: Annotated[str, Field(max_length=1024)] | None = None


class FilePart(Model):
    type: Literal["file"]
    file: FileContent

    def stored(self) -> Json:
        file = InputFile(type="input_file", file_data=self.file.file_data, filename=self.file.filename)
        return file.stored()


UserPart = Annotated[
    Annotated[TextPart, Tag("@text")] | Annotated[ImagePart, Tag("@image_url")] | Annotated[FilePart, Tag("@file")],
    Discriminator(type_tag),
]
AssistantPart = Annotated[
    Annotated[TextPart, Tag("@text")] | Annotated[RefusalPart, Tag("@refusal")], Discriminator(type_tag)
]
PlainContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[TextPart], Tag("@list")], TEXT_OR_LIST]
UserContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[UserPart], Tag("@list")], TEXT_OR_LIST]
AssistantContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[AssistantPart], Tag("@list")], TEXT_OR_LIST]


def _message(role: str, parts: list[Json], name: str | None) -> Json:
    item = {"id": new_id("msg_"), "type": "message", "status": "completed", "role": role, "content": parts}
    return item if name is None else {**item, "name": name}


def _parts(content: str | Sequence[TextPart | ImagePart | FilePart]) -> list[Json]:
    whole = [TextPart(type="text", text=content)] if isinstance(content, str) else content
    return [part.stored() for part in whole]


class PlainMessage(Model):
    role: Literal["system", "developer"]
    content: PlainContent
    name: ParticipantName | None = None

    def items(self) -> list[Json]:
        return [_message(self.role, _parts(self.content), self.name)]


class UserMessage(Model):
    role: Literal["user"]
    content: UserContent
    name: ParticipantName | None = None

    def items(self) -> list[Json]:
        return [_message(self.role, _parts(self.content), self.name)]


class CalledFunction(Model):
    name: CalledName
    arguments: Text


class MadeCall(Model):
    type: Literal["function"]
    id: CallId
    function: CalledFunction


class AssistantMessage(Model):
    """One message here; in a conversation what was said and each call are items of their own."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: Text | None = None
    tool_calls: Many[MadeCall] | None = None
    name: ParticipantName | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.refusal is None and not self.tool_calls:
            message = "An assistant's message needs 'content', 'refusal' or 'tool_calls'."
            raise refused("missing_required_parameter", message, "content")
        return self

    def items(self) -> list[Json]:
        parts = self._parts()
        said = [_message(self.role, parts, self.name)] if parts or not self.tool_calls else []
        return said + [_call(one) for one in self.tool_calls or []]

    def _parts(self) -> list[Json]:
        """Many clients send an empty text beside calls; it says nothing."""
        content: Sequence[TextPart | RefusalPart] = []
        if isinstance(self.content, list):
            content = self.content
        elif self.content or (self.content is not None and not self.tool_calls):
            content = [TextPart(type="text", text=self.content)]
        parts = [
            part.stored() if isinstance(part, RefusalPart) else OutputText(type="output_text", text=part.text).stored()
            for part in content
        ]
        return parts if self.refusal is None else [*parts, {"type": "refusal", "refusal": self.refusal}]


def _call(made: MadeCall) -> Json:
    function = made.function
    call = FunctionCall(type="function_call", call_id=made.id, name=function.name, arguments=function.arguments)
    return call.stored()


class ToolMessage(Model):
    role: Literal["tool"]
    tool_call_id: CallId
    content: PlainContent

    def items(self) -> list[Json]:
        output = self.content if isinstance(self.content, str) else _parts(self.content)
        item = {"id": new_id("fco_"), "type": "function_call_output", "status": "completed"}
        return [{**item, "call_id": self.tool_call_id, "output": output}]


class UnknownMessage(Model):
    """What is told of a role that there is not; no message is one."""

    role: Literal["developer", "system", "user", "assistant", "tool"]

    def items(self) -> list[Json]:
        raise AssertionError("its role belongs to another form")


_FORMS = {
    "developer": "@plain",
    "system": "@plain",
    "user": "@user",
    "assistant": "@assistant",
    "tool": "@tool",
}


def _form(value: Any) -> str:  # noqa: ANN401 - whatever a client sent
    match value:
        case {"role": str(role)}:
            return _FORMS.get(role, "@unknown")
        case _:
            return "@unknown"


Message = Annotated[
    Annotated[PlainMessage, Tag("@plain")]
    | Annotated[UserMessage, Tag("@user")]
    | Annotated[AssistantMessage, Tag("@assistant")]
    | Annotated[ToolMessage, Tag("@tool")]
    | Annotated[UnknownMessage, Tag("@unknown")],
    Discriminator(_form),
]
