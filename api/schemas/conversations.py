"""Bodies of the Conversations API."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from api.schemas.items import Item, ItemReference
from api.schemas.parts import Json, Many, Model
from api.schemas.wording import refused

MOST_ITEMS = 20

MOST_PAIRS = 16
LONGEST_KEY = 64
LONGEST_VALUE = 512


def few(most: int) -> BeforeValidator:
    """Count before looking at each of what may be a million wrong pairs."""

    def check(value: Any) -> Any:  # noqa: ANN401 - whatever a client sent
        if isinstance(value, dict) and len(value) > most:
            limits = {"field_type": "Dictionary", "max_length": most, "actual_length": len(value)}
            raise PydanticKnownError("too_long", limits)
        return value

    return BeforeValidator(check)


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=LONGEST_KEY)], Annotated[str, Field(max_length=LONGEST_VALUE)]],
    few(MOST_PAIRS),
]


class Body(Model):
    """A body with a field that we do not know is refused: what it asks for would not happen."""

    # "forbid" would tell of each of what may be a million unknown fields.
    model_config = ConfigDict(strict=True, extra="allow")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.model_extra or ():
            message = (
                f"Unknown parameter: '{name[:64]}'. Check its spelling, or leave it out: this service can't do it."
            )
            raise refused("unknown_parameter", message, name)
        return self


def _no_reference(item: Item) -> Item:
    """A second item under the id of the first would be none that PostgreSQL could store."""
    if isinstance(item, ItemReference):
        message = "An item_reference can't be kept in a conversation; it is for the input of a response. Send the item."
        raise refused("invalid_value", message, "type")
    return item


NewItem = Annotated[Item, AfterValidator(_no_reference)]


class CreateConversation(Body):
    items: Annotated[Many[NewItem], Field(max_length=MOST_ITEMS)] | None = None
    metadata: Metadata | None = None

    def new_items(self) -> list[Json]:
        return [item.stored() for item in self.items or []]


class UpdateConversation(Body):
    metadata: Metadata | None


class CreateItems(Body):
    items: Annotated[Many[NewItem], Field(min_length=1, max_length=MOST_ITEMS)]

    def new_items(self) -> list[Json]:
        return [item.stored() for item in self.items]
