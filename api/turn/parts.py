"""The open part of an output item, and the events that tell of it."""

from typing import Any

import orjson

Json = dict[str, Any]


class Part:
    """Of a message's or a reasoning's content, or of a reasoning's summary."""

    def __init__(self, kind: str, item_id: str, output_index: int, index: int) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.annotations: list[Json] = []
        self.logprobs: list[Json] = []
        self.list_name, place = "content", b"content_index"
        self.added, self.done = b"response.content_part.added", b"response.content_part.done"
        self.tail = b""
        match kind:
            case "output_text":
                self.event, self.tail = b"response.output_text", b',"logprobs":[]'
            case "refusal":
                self.event = b"response.refusal"
            case "summary_text":
                self.event = b"response.reasoning_summary_text"
                self.list_name, place = "summary", b"summary_index"
                self.added = b"response.reasoning_summary_part.added"
                self.done = b"response.reasoning_summary_part.done"
            case _:
                self.event = b"response.reasoning"
        self.head = b'"item_id":"%b","output_index":%d,"%b":%d,' % (item_id.encode(), output_index, place, index)

    def tail_with(self, logprobs: list[Json]) -> bytes:
        return b',"logprobs":' + orjson.dumps(logprobs) if logprobs else self.tail

    def body(self) -> Json:
        text = "".join(self.pieces)
        match self.kind:
            case "output_text":
                return {"type": "output_text", "text": text, "annotations": self.annotations, "logprobs": self.logprobs}
            case "refusal":
                return {"type": "refusal", "refusal": text}
            case kind:
                return {"type": kind, "text": text}
