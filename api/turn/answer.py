"""Builds the output items of one response out of an upstream's deltas, and the events that tell of each step."""

from typing import Any, Protocol

import orjson

from api.ids import new_id
from api.turn.parts import Part
from api.upstream.exchange import (
    Annotation,
    Delta,
    Finish,
    ItemEnd,
    Logprobs,
    Reasoning,
    Refusal,
    Summary,
    Text,
    ToolCall,
    UpstreamError,
    Usage,
)

Json = dict[str, Any]


class Emit(Protocol):
    def __call__(self, event: bytes, fields: bytes) -> None: ...


class Answer:
    """The output so far. Text, refusals and reasoning come one after the other; function calls may overlap."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.items: list[Json] = []
        self.usage: Usage | None = None
        self.finish: Finish | None = None
        self.callable_tools: frozenset[str] | None = None
        """The functions that the client allows; None: any."""
        self._part: Part | None = None
        self._logprobs: list[Json] = []
        """Of the text that comes next."""
        self._summary = 0
        """Which part of a reasoning's summary is being told."""
        self._calls: dict[int, tuple[int, list[str]]] = {}
        self._open: set[int] = set()

    def forget(self) -> None:
        """As if nothing had been produced; only where nobody has seen any event."""
        self.items, self._part = [], None
        self._calls.clear()
        self._open.clear()

    @property
    def produced(self) -> bool:
        return bool(self.items)

    def add_all(self, deltas: list[Delta]) -> None:
        """What came in one read. Pieces of text become one event: nobody could have seen them one after the other.

        Raises UpstreamError when the model calls a function that the client did not allow.
        """
        pending: list[str] = []
        for delta in deltas:
            if isinstance(delta, Text):
                pending.append(delta.text)
                continue
            if pending:
                self._add_content("message", "output_text", "".join(pending))
                pending.clear()
            self._add(delta)
        if pending:
            self._add_content("message", "output_text", "".join(pending))

    def _add(self, delta: Delta) -> None:
        match delta:
            case Reasoning(text):
                self._add_content("reasoning", "reasoning_text", text)
            case Summary():
                self._add_summary(delta)
            case Refusal(text):
                self._add_content("message", "refusal", text)
            case ToolCall():
                self._add_call(delta)
            case Usage():
                self.usage = delta if self.usage is None else self.usage.plus(delta)
            case Finish():
                self.finish = delta
            case Annotation() | ItemEnd() | Logprobs():
                self._mark(delta)

    def _mark(self, delta: Annotation | ItemEnd | Logprobs) -> None:
        match delta:
            case Annotation(annotation):
                self._annotate(annotation)
            case ItemEnd(encrypted_content):
                self._end_item(encrypted_content)
            case Logprobs(tokens):
                self._logprobs += tokens

    def _add_summary(self, delta: Summary) -> None:
        if delta.number != self._summary:
            self._close_part()
            self._summary = delta.number
        self._add_content("reasoning", "summary_text", delta.text)

    def add_whole(self, item: Json, usage: Usage) -> None:
        """An item that comes all at once, ahead of the others, and what it cost."""
        self._add(usage)
        self._open_item(item)
        self._close_items("completed")

    def _add_content(self, item_type: str, kind: str, text: str) -> None:
        part = self._part
        if part is None or part.kind != kind:
            part = self._open_part(item_type, kind)
        part.pieces.append(text)
        tail = part.tail
        if self._logprobs and kind == "output_text":
            told, self._logprobs = self._logprobs, []
            part.logprobs += told
            tail = part.tail_with(told)
        self._emit(part.event + b".delta", part.head + b'"delta":' + orjson.dumps(text) + tail)

    def _open_part(self, item_type: str, kind: str) -> Part:
        self._close_part()
        last = len(self.items) - 1
        if last not in self._open or self.items[last]["type"] != item_type:
            self._close_items("completed")
            last += 1
            self._open_item(
                {"id": new_id("msg_"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}
                if item_type == "message"
                else {"id": new_id("rs_"), "type": "reasoning", "summary": [], "content": []}
            )
        item = self.items[last]
        parts = item["summary"] if kind == "summary_text" else item["content"]
        self._part = part = Part(kind, item["id"], last, len(parts))
        self._emit(part.added, part.head + b'"part":' + orjson.dumps(part.body()))
        return part

    def _open_item(self, item: Json) -> None:
        self._open.add(len(self.items))
        self.items.append(item)
        self._emit(
            b"response.output_item.added",
            b'"output_index":%d,"item":%b' % (len(self.items) - 1, orjson.dumps(item)),
        )

    def _add_call(self, delta: ToolCall) -> None:
        if delta.number not in self._calls:
            if self.callable_tools is not None and delta.name not in self.callable_tools:
                message = f"The model called the function '{delta.name}', which tool_choice does not allow."
                raise UpstreamError(502, "tool_not_allowed", message, "tool_choice")
            self._close_part()
            self._close_content_items()
            self._calls[delta.number] = (len(self.items), [])
            self._open_item(
                {
                    "id": new_id("fc_"),
                    "type": "function_call",
                    "status": "in_progress",
                    "call_id": delta.call_id,
                    "name": delta.name,
                    "arguments": "",
                }
            )
        index, pieces = self._calls[delta.number]
        if delta.arguments:
            pieces.append(delta.arguments)
            self._emit(
                b"response.function_call_arguments.delta",
                b'"item_id":"%b","output_index":%d,"delta":%b'
                % (self.items[index]["id"].encode(), index, orjson.dumps(delta.arguments)),
            )

    def _close_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        body = part.body()
        self.items[-1][part.list_name].append(body)
        text = body["refusal"] if part.kind == "refusal" else body["text"]
        field = b"refusal" if part.kind == "refusal" else b"text"
        self._emit(
            part.event + b".done", part.head + b'"%b":%b' % (field, orjson.dumps(text)) + part.tail_with(part.logprobs)
        )
        self._emit(part.done, part.head + b'"part":' + orjson.dumps(body))

    def _annotate(self, annotation: Json) -> None:
        part = self._part
        if part is not None and part.kind == "output_text":
            index = b'"annotation_index":%d,"annotation":' % len(part.annotations)
            part.annotations.append(annotation)
            self._emit(part.event + b".annotation.added", part.head + index + orjson.dumps(annotation))

    def _end_item(self, encrypted_content: str | None) -> None:
        self._close_part()
        self._summary = 0
        if encrypted_content:
            last = len(self.items) - 1
            if last not in self._open or self.items[last]["type"] != "reasoning":
                self._close_content_items()
                self._open_item({"id": new_id("rs_"), "type": "reasoning", "summary": [], "content": []})
            self.items[-1]["encrypted_content"] = encrypted_content
        self._close_content_items()

    def _close_content_items(self) -> None:
        calls = {index for index, _ in self._calls.values()}
        for index in sorted(self._open - calls):
            self._close_item(index, "completed")

    def _close_items(self, status: str) -> None:
        for index in sorted(self._open):
            self._close_item(index, status)

    def _close_item(self, index: int, status: str) -> None:
        self._open.discard(index)
        item = self.items[index]
        if item["type"] == "function_call":
            pieces = next(pieces for at, pieces in self._calls.values() if at == index)
            item["arguments"] = "".join(pieces)
            self._emit(
                b"response.function_call_arguments.done",
                b'"item_id":"%b","output_index":%d,"arguments":%b'
                % (item["id"].encode(), index, orjson.dumps(item["arguments"])),
            )
        if "status" in item:
            item["status"] = status
        self._emit(b"response.output_item.done", b'"output_index":%d,"item":%b' % (index, orjson.dumps(item)))

    def close(self, *, whole: bool) -> None:
        """End what is still open; not `whole`: the answer stopped early and says so in its last items."""
        self._close_part()
        self._close_items("completed" if whole else "incomplete")
