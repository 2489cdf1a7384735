"""What a client may send over a WebSocket."""

from typing import Literal

from pydantic import model_validator

from api.schemas.responses import CreateResponse
from api.schemas.wording import refused


class ResponseCreateEvent(CreateResponse):
    """The body of POST /v1/responses; every response is streamed, and none can be left."""

    type: Literal["response.create"]
    stream: bool = True
    generate: bool | None = None

    @model_validator(mode="after")
    def _fits_a_socket(self) -> "ResponseCreateEvent":
        if not self.stream:
            raise refused("invalid_value", "Every response is streamed over a WebSocket. Leave 'stream' out.", "stream")
        if self.background:
            message = "'background' goes with POST /v1/responses. Over a WebSocket, leave it out."
            raise refused("invalid_value", message, "background")
        if self.generate is False and self.conversation is not None:
            message = "'generate': false keeps nothing in a conversation. Use it without 'conversation'."
            raise refused("invalid_value", message, "generate")
        return self
