"""The parts that an item's content is made of, and the two forms in which content comes."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from api.schemas.edge import check_free_form
from api.schemas.wording import WRONG_FORM, refused

Json = dict[str, Any]
T = TypeVar("T")

# A body of a few MB can hold millions of mistakes, and each costs a kilobyte to tell: the first is enough.
Many = Annotated[list[T], Field(fail_fast=True)]

LONGEST_TEXT = 10 * 1024 * 1024
LONGEST_IMAGE = 20 * 1024 * 1024
LONGEST_FILE = 32 * 1024 * 1024

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]


class Model(BaseModel):
    """JSON types are taken as they are: "1" is no number. What an item has beyond its fields is left out."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


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
            raise refused("missing_required_parameter", "An input_file needs file_data or file_url.", "file_data")
        return self

    def stored(self) -> Json:
        return self.model_dump(exclude_none=True)


class OutputText(Model):
    type: Literal["output_text"]
    text: Text
    annotations: Many[Json] | None = None

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
    match value:
        case {"type": str(kind)}:
            return f"@{kind}"
        case _:
            return None


InputPart = Annotated[
    Annotated[InputText, Tag("@input_text")]
    | Annotated[InputImage, Tag("@input_image")]
    | Annotated[InputFile, Tag("@input_file")],
    Discriminator(type_tag),
]
OutputPart = Annotated[
    Annotated[OutputText, Tag("@output_text")] | Annotated[RefusalPart, Tag("@refusal")], Discriminator(type_tag)
]


def form(value: Any) -> str | None:  # noqa: ANN401 - whatever a client sent
    match value:
        case str():
            return "@text"
        case list():
            return "@list"
        case dict():
            return "@object"
        case _:
            return None


TEXT_OR_LIST = Discriminator(form, custom_error_type=WRONG_FORM, custom_error_message="a string or an array of objects")
TEXT_OR_OBJECT = Discriminator(form, custom_error_type=WRONG_FORM, custom_error_message="a string or an object")

InputContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[InputPart], Tag("@list")], TEXT_OR_LIST]
OutputContent = Annotated[Annotated[Text, Tag("@text")] | Annotated[Many[OutputPart], Tag("@list")], TEXT_OR_LIST]
