"""The bytes of a stream: one server-sent event per frame, numbered, `event:` equal to the `type` in its data."""

from collections.abc import Iterator

import orjson

from api.errors import ApiError

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"


def frame(event: bytes, sequence: int, fields: bytes) -> bytes:
    """`fields` is the inside of a JSON object, without its braces."""
    return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (event, event, sequence, fields)


def terminal_frame(status: str, sequence: int, body: bytes) -> bytes:
    """The last event of a stream; a cancelled response ends as `incomplete`, the specification has no other event."""
    event = {"completed": b"response.completed", "failed": b"response.failed"}.get(status, b"response.incomplete")
    return frame(event, sequence, b'"response":' + body)


def split(log: bytes) -> Iterator[bytes]:
    """The frames of a logged blob, as they were sent."""
    for text in log.split(b"\n\n")[:-1]:
        yield text + b"\n\n"


def error_frame(sequence: int, error: ApiError) -> bytes:
    """What ends a stream that has no response any more to end with. OpenAI's types have its fields beside `type`, the
    specification has them in `error`."""
    told = orjson.loads(error.body())
    fields = {name: told["error"][name] for name in ("code", "message", "param")} | told
    return frame(b"error", sequence, orjson.dumps(fields)[1:-1])


def text_of(one_frame: bytes) -> str:
    """The JSON of a frame of ours."""
    return one_frame[one_frame.index(b"\ndata: ") + 7 : -2].decode()


def payload(one_frame: bytes) -> dict[str, object]:
    """The JSON object of a frame of ours."""
    parsed: dict[str, object] = orjson.loads(text_of(one_frame))
    return parsed
