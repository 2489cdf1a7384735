"""Bodies of the Conversations API."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from api.schemas.items import Item, Model

Json = dict[str, Any]

MOST_ITEMS = 20

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Body(Model):
    """A body with a field that we do not know is refused: what it asks for would not happen."""

    model_config = ConfigDict(strict=True, extra="forbid")


class CreateConversation(Body):
    items: Annotated[list[Item], Field(max_length=MOST_ITEMS)] | None = None
    metadata: Metadata | None = None

    def new_items(self) -> list[Json]:
        return [item.stored() for item in self.items or []]


class UpdateConversation(Body):
    metadata: Metadata | None


class CreateItems(Body):
    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]

    def new_items(self) -> list[Json]:
        return [item.stored() for item in self.items]
