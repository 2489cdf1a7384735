"""The messages of POST /v1/chat/completions, and the items that each of them is in a conversation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

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


class ChatTextPart(Model):
    type: Literal["text"]
    text: Text

    def stored(self) -> Json:
        return InputText(type="input_text", text=self.text).stored()


class ChatImageUrl(Model):
    url: Annotated[str, Field(min_length=1, max_length=LONGEST_IMAGE)]
    detail: Literal["auto", "low", "high"] | None = None


class ChatImagePart(Model):
    type: Literal["image_url"]
    image_url: ChatImageUrl

    def stored(self) -> Json:
        image = InputImage(type="input_image", image_url=self.image_url.url, detail=self.image_url.detail)
        return image.stored()


class ChatFileContent(Model):
    """Files by `file_id` would need a store of files, which this service has not."""

    file_data: Annotated[str, Field(min_length=1, max_length=LONGEST_FILE)]
    filename: Annotated[str, Field(max_length=1024)] | None = None


class ChatFilePart(Model):
    type: Literal["file"]
    file: ChatFileContent

    def stored(self) -> Json:
        file = InputFile(type="input_file", file_data=self.file.file_data, filename=self.file.filename)
        return file.stored()


UserPart = Annotated[
    Annotated[ChatTextPart, Tag("@text")]
    | Annotated[ChatImagePart, Tag("@image_url")]
    | Annotated[ChatFilePart, Tag("@file")],
    Discriminator(type_tag),
]
AssistantPart = Annotated[
    Annotated[ChatTextPart, Tag("@text")] | Annotated[RefusalPart, Tag("@refusal")], Discriminator(type_tag)
]
PlainContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[ChatTextPart], Tag("@list")], TEXT_OR_LIST]
UserContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[UserPart], Tag("@list")], TEXT_OR_LIST]
AssistantContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[AssistantPart], Tag("@list")], TEXT_OR_LIST]


def _message(role: str, parts: list[Json], name: str | None) -> Json:
    item = {"id": new_id("msg_"), "type": "message", "status": "completed", "role": role, "content": parts}
    return item if name is None else {**item, "name": name}


def _parts(content: str | Sequence[ChatTextPart | ChatImagePart | ChatFilePart]) -> list[Json]:
    whole = [ChatTextPart(type="text", text=content)] if isinstance(content, str) else content
    return [part.stored() for part in whole]


class ChatPlainMessage(Model):
    role: Literal["system", "developer"]
    content: PlainContent
    name: ParticipantName | None = None

    def items(self) -> list[Json]:
        return [_message(self.role, _parts(self.content), self.name)]


class ChatUserMessage(Model):
    role: Literal["user"]
    content: UserContent
    name: ParticipantName | None = None

    def items(self) -> list[Json]:
        return [_message(self.role, _parts(self.content), self.name)]


class ChatCalledFunction(Model):
    name: CalledName
    arguments: Text


class ChatMadeCall(Model):
    type: Literal["function"]
    id: CallId
    function: ChatCalledFunction


class ChatAssistantMessage(Model):
    """One message here; in a conversation what was said and each call are items of their own."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: Text | None = None
    tool_calls: Many[ChatMadeCall] | None = None
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
        content: Sequence[ChatTextPart | RefusalPart] = []
        if isinstance(self.content, list):
            content = self.content
        elif self.content or (self.content is not None and not self.tool_calls):
            content = [ChatTextPart(type="text", text=self.content)]
        parts = [
            part.stored() if isinstance(part, RefusalPart) else OutputText(type="output_text", text=part.text).stored()
            for part in content
        ]
        return parts if self.refusal is None else [*parts, {"type": "refusal", "refusal": self.refusal}]


def _call(made: ChatMadeCall) -> Json:
    function = made.function
    call = FunctionCall(type="function_call", call_id=made.id, name=function.name, arguments=function.arguments)
    return call.stored()


class ChatToolMessage(Model):
    role: Literal["tool"]
    tool_call_id: CallId
    content: PlainContent

    def items(self) -> list[Json]:
        output = self.content if isinstance(self.content, str) else _parts(self.content)
        item = {"id": new_id("fco_"), "type": "function_call_output", "status": "completed"}
        return [{**item, "call_id": self.tool_call_id, "output": output}]


_FORMS = {
    "developer": "@plain",
    "system": "@plain",
    "user": "@user",
    "assistant": "@assistant",
    "tool": "@tool",
}


def _form(value: Any) -> str:  # noqa: ANN401 - whatever a client sent
    return _FORMS[value["role"]] if isinstance(value, dict) else "@plain"


def _has_a_role(value: Any) -> Any:  # noqa: ANN401 - whatever a client sent
    match value:
        case {"role": str(role)} if role in _FORMS:
            pass
        case {"role": _}:
            roles = ", ".join(f"'{role}'" for role in _FORMS)
            raise refused(
                "invalid_value", f"Invalid value for a message's 'role'. Supported values are: {roles}.", "role"
            )
        case dict():
            raise refused("missing_required_parameter", "Missing required parameter: a message's 'role'.", "role")
    return value


Message = Annotated[
    Annotated[ChatPlainMessage, Tag("@plain")]
    | Annotated[ChatUserMessage, Tag("@user")]
    | Annotated[ChatAssistantMessage, Tag("@assistant")]
    | Annotated[ChatToolMessage, Tag("@tool")],
    Discriminator(_form),
    BeforeValidator(_has_a_role),
]
