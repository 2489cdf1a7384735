"""An answer of the Responses API, whole or as events, read into deltas."""

from typing import Any

from api.ids import new_id
from api.upstream.estimate import estimated_usage
from api.upstream.exchange import (
    Annotation,
    Ask,
    Delta,
    Finish,
    ItemEnd,
    Json,
    Reasoning,
    Refusal,
    Summary,
    Text,
    ToolCall,
    Usage,
)
from api.upstream.failures import cut, failure, failure_in_answer
from api.upstream.logprobs import add_logprobs
from api.upstream.payloads import Reply

# What of an error's codes is the request's own fault, or passes; everything else is a failure of the server.
STATUSES = {"rate_limit_exceeded": 429, "invalid_prompt": 400, "invalid_request_error": 400, "not_found": 404}
CITATION = {"type": str, "url": str, "start_index": int, "end_index": int, "title": str}


SPOKEN: dict[str, type[Text | Refusal | Reasoning]] = {
    "response.output_text.delta": Text,
    "response.refusal.delta": Refusal,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,
}


class _Call:
    """One function call, of which pieces come."""

    def __init__(self, number: int, item: Json) -> None:
        self.number = number
        self.call_id: str = item.get("call_id") or new_id("call_")
        self.name: str = item["name"]
        self.arguments = False


class ResponsesReply(Reply):
    """Some servers give their events no `output_index`, others give an item another id in each event, and others leave
    out events whose content comes in a later one. So an item is known by whichever of both is there, and what an end
    has and no delta brought is read from the end."""

    def __init__(self, ask: Ask, key: str) -> None:
        super().__init__(ask, key)
        self._calls: dict[int | str, _Call] = {}
        self._count = 0
        self._told: set[int | str | None] = set()
        """Items of which something came, by index and by id, and "message" and "reasoning"."""
        self._ended: set[int | str | None] = set()
        self._usage: Usage | None = None
        self._characters = 0

    def ending(self) -> list[Delta]:
        if self.failure is not None:
            raise self.failure
        if self.finish is None:
            raise cut()
        calls = {call.number: call for call in self._calls.values()}
        last: list[Delta] = [
            ToolCall(call.number, call.call_id, call.name, "{}") for call in calls.values() if not call.arguments
        ]
        last.append(self._usage or estimated_usage(self._ask, self._characters))
        last.append(Finish("tool_calls") if calls and self.finish.reason == "stop" else self.finish)
        return last

    def _read_document(self, document: Any, deltas: list[Delta]) -> None:  # noqa: ANN401 - JSON of any shape
        kind = document.get("type")
        if kind in SPOKEN:
            self._told.add(document.get("output_index"))
            self._told.add(document.get("item_id"))
            add_logprobs(self._ask, document.get("logprobs"), deltas)
            self._say(SPOKEN[kind](document["delta"]), deltas)
            return
        match kind:
            case "response.reasoning_summary_text.delta":
                self._told |= _names(document, document)
                self._say(Summary(document.get("summary_index", 0), document["delta"]), deltas)
            case "response.output_text.annotation.added":
                _annotate(document["annotation"], deltas)
            case "response.function_call_arguments.delta":
                [call, *_] = self._known_calls(_names(document, document))
                self._add_arguments(call, document["delta"], deltas)
            case "response.output_item.added" | "response.output_item.done":
                self._read_item(document, deltas)
            case "response.completed" | "response.incomplete" | "response.failed":
                self._end(document["response"], deltas)
            case _:
                self._read_other(document, deltas)

    def _read_item(self, event: Json, deltas: list[Delta]) -> None:
        item, names = event["item"], _names(event, event["item"])
        if event["type"] == "response.output_item.done":
            self._end_item(item, names, deltas)
        elif item["type"] == "function_call":
            self._begin_call(item, names, deltas)

    def _read_other(self, document: Json, deltas: list[Delta]) -> None:
        """The whole response where no events were asked for, an error, or an event that tells nothing new."""
        if document.get("object") == "response" and "type" not in document:
            self._end(document, deltas)
        elif error := document.get("error") or (document if document.get("type") == "error" else None):
            self._fail(error)

    def _say(self, delta: Text | Refusal | Reasoning | Summary, deltas: list[Delta]) -> None:
        self._told.add("reasoning" if isinstance(delta, Reasoning | Summary) else "message")
        if delta.text:
            self._characters += len(delta.text)
            deltas.append(delta)

    def _begin_call(self, item: Json, names: set[int | str], deltas: list[Delta]) -> _Call:
        call = _Call(self._count, item)
        self._count += 1
        self._calls.update(dict.fromkeys(names | {call.call_id}, call))
        deltas.append(ToolCall(call.number, call.call_id, call.name, ""))
        return call

    def _known_calls(self, names: set[int | str]) -> list[_Call]:
        return [self._calls[name] for name in names if name in self._calls]

    def _add_arguments(self, call: _Call, arguments: str, deltas: list[Delta]) -> None:
        if arguments:
            call.arguments = True
            self._characters += len(arguments)
            deltas.append(ToolCall(call.number, call.call_id, call.name, arguments))

    def _end_item(self, item: Json, names: set[int | str], deltas: list[Delta]) -> None:
        self._ended |= names
        match item["type"]:
            case "function_call":
                known = self._known_calls(names | {item.get("call_id") or ""})
                call = known[0] if known else self._begin_call(item, names, deltas)
                if not call.arguments:
                    self._add_arguments(call, item.get("arguments") or "", deltas)
            case "message" | "reasoning":
                if not names & self._told:
                    self._read_parts(item, deltas)
                deltas.append(ItemEnd(item.get("encrypted_content")))
            case _:
                pass  # of a tool that the server runs itself, for which nobody asked

    def _read_parts(self, item: Json, deltas: list[Delta]) -> None:
        for number, part in enumerate(item.get("summary") or ()):
            self._say(Summary(number, part["text"]), deltas)
        for part in item.get("content") or ():
            match part:
                case {"type": "refusal", "refusal": text}:
                    self._say(Refusal(text), deltas)
                case {"type": "reasoning_text", "text": text}:
                    self._say(Reasoning(text), deltas)
                case {"type": "output_text" | "text", "text": text}:
                    add_logprobs(self._ask, part.get("logprobs"), deltas)
                    self._say(Text(text), deltas)
                    for annotation in part.get("annotations") or ():
                        _annotate(annotation, deltas)
                case _:
                    pass

    def _end(self, response: Json, deltas: list[Delta]) -> None:
        told = set(self._told)
        for index, item in enumerate(response.get("output") or ()):
            names = _names({"output_index": index}, item)
            if not names & self._ended and item["type"] not in told:
                self._end_item(item, names, deltas)
        if usage := response.get("usage"):
            self._usage = _usage(usage)
        match response.get("status"):
            case "completed":
                self.finish = Finish("stop")
            case "incomplete":
                reason = (response.get("incomplete_details") or {}).get("reason")
                self.finish = Finish("content_filter" if reason == "content_filter" else "length")
            case "failed":
                self._fail(response.get("error") or {})
            case _:
                self.failure = cut()
        self.done = True

    def _fail(self, error: Any) -> None:  # noqa: ANN401 - JSON of any shape
        code = error.get("code") or error.get("type") if isinstance(error, dict) else None
        status = STATUSES.get(str(code)) or (400 if "image" in str(code) else None)
        self.failure = failure(status, error, self._key) if status else failure_in_answer(error, self._key)


def _names(event: Json, item: Json) -> set[int | str]:
    """By which this item may be known: its index and its id."""
    names = (event.get("output_index"), item.get("item_id") or item.get("id"))
    return {name for name in names if name is not None}


def _annotate(annotation: Any, deltas: list[Delta]) -> None:  # noqa: ANN401 - JSON of any shape
    """A citation of a page; others name files and containers of the server, which our clients can't get at."""
    if isinstance(annotation, dict) and annotation.get("type") == "url_citation":
        known = {name: annotation.get(name) for name in CITATION}
        if all(isinstance(known[name], kind) for name, kind in CITATION.items()):
            deltas.append(Annotation(known))


def _usage(usage: Json) -> Usage:
    asked = usage.get("input_tokens_details") or {}
    counts = (
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        asked.get("cached_tokens"),
        (usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
        asked.get("cache_write_tokens"),
    )
    asked_for, answered, cached, reasoned, written = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(asked_for, answered, cached, reasoned, written)
