"""An answer of chat completions, whole or in chunks, read into deltas whatever its server's peculiarities."""

from typing import Any

import orjson

from api.ids import new_id
from api.upstream.estimate import estimated_usage
from api.upstream.exchange import Ask, Delta, Finish, Json, Reasoning, Refusal, Text, ToolCall, Usage
from api.upstream.failures import cut, failure_in_answer, told, unreadable
from api.upstream.logprobs import add_logprobs
from api.upstream.payloads import Reply

# Everything else that ends an answer ("stop", "eos", "end_turn", …) is a stop.
REASONS = {
    "length": Finish("length"),
    "max_tokens": Finish("length"),
    "model_length": Finish("length"),
    "content_filter": Finish("content_filter"),
    "safety": Finish("content_filter"),
    "tool_calls": Finish("tool_calls"),
    "function_call": Finish("tool_calls"),
}
BROKEN_OFF = frozenset({"error", "abort", "insufficient_system_resource"})


class _Call:
    """One function call, of which pieces come."""

    def __init__(self, number: int, index: Any) -> None:  # noqa: ANN401 - what the provider counts with, or nothing
        self.number = number
        self.index = index
        self.provider_id = ""
        self.call_id = ""
        self.name = ""
        self.told = False
        self.arguments = False
        self.held = ""


class ChatReply(Reply):
    def __init__(self, ask: Ask, key: str) -> None:
        super().__init__(ask, key)
        self._calls: list[_Call] = []
        self._usage: Usage | None = None
        self._characters = 0

    def ending(self) -> list[Delta]:
        if self.failure is not None:
            raise self.failure
        if self.finish is None and not self.done:
            raise cut()
        if self.finish is None and not self._characters and not self._calls:
            raise unreadable("an empty answer")
        last: list[Delta] = []
        for call in self._calls:
            if not call.told:
                raise unreadable("a function call without a name")
            if not call.arguments:
                last.append(ToolCall(call.number, call.call_id, call.name, "{}"))
        last.append(self._usage or estimated_usage(self._ask, self._characters))
        finish = self.finish or Finish("stop")
        last.append(Finish("tool_calls") if self._calls and finish.reason == "stop" else finish)
        return last

    def _read_document(self, document: Any, deltas: list[Delta]) -> None:  # noqa: ANN401 - JSON of any shape
        if usage := document.get("usage"):
            self._usage = _usage(usage)
        choices = document.get("choices")
        if not choices or "error" in document:
            if error := told(document):
                self.failure = failure_in_answer(error, self._key)
                return
            if not choices:
                return
        choice = choices[0]
        delta = choice.get("delta") or choice.get("message")
        if choice.get("logprobs"):
            add_logprobs(self._ask, choice["logprobs"].get("content"), deltas)
        if delta:
            self._read_delta(delta, deltas)
        reason = choice.get("finish_reason")
        if reason:
            self._read_reason(reason.lower(), choice)

    def _read_reason(self, reason: str, choice: Json) -> None:
        if reason in BROKEN_OFF:
            self.failure = failure_in_answer(choice.get("error") or {}, self._key)
        elif self.finish is None:
            self.finish = REASONS.get(reason) or Finish("stop")

    def _read_delta(self, delta: Json, deltas: list[Delta]) -> None:
        content = delta.get("content")
        if isinstance(content, str) and len(delta) == 1:
            # What nearly every chunk is.
            if content:
                self._characters += len(content)
                deltas.append(Text(content))
            return
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(reasoning, str):
            self._say(Reasoning(reasoning), deltas)
        if isinstance(content, str):
            self._say(Text(content), deltas)
        elif content:
            self._read_parts(content, deltas)
        if refusal := delta.get("refusal"):
            self._say(Refusal(refusal), deltas)
        for piece in delta.get("tool_calls") or ():
            self._read_call(piece, deltas)

    def _say(self, delta: Text | Reasoning | Refusal, deltas: list[Delta]) -> None:
        if delta.text:
            self._characters += len(delta.text)
            deltas.append(delta)

    def _read_parts(self, parts: list[Any], deltas: list[Delta]) -> None:
        for part in parts:
            match part:
                case str(text) | {"type": "text" | "output_text", "text": str(text)}:
                    self._say(Text(text), deltas)
                case {"type": "refusal", "refusal": str(text)}:
                    self._say(Refusal(text), deltas)
                case {"type": "thinking", "thinking": list(thoughts)}:
                    self._say(Reasoning("".join(thought["text"] for thought in thoughts)), deltas)
                case {"type": "thinking", "thinking": str(text)}:
                    self._say(Reasoning(text), deltas)
                case _:
                    pass

    def _read_call(self, piece: Json, deltas: list[Delta]) -> None:
        function = piece.get("function") or {}
        name, provider_id = function.get("name") or "", piece.get("id") or ""
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        call = self._call_of(piece.get("index"), provider_id, name)
        call.provider_id = call.provider_id or provider_id
        call.name = call.name or name
        call.arguments = call.arguments or bool(arguments)
        self._characters += len(arguments)
        if not call.name:
            # The first piece that goes out has the name; what comes before it waits.
            call.held += arguments
            return
        if not call.told:
            call.told = True
            call.call_id = call.provider_id or new_id("call_")
            arguments = call.held + arguments
        elif not arguments:
            return
        deltas.append(ToolCall(call.number, call.call_id, call.name, arguments))

    def _call_of(self, index: Any, provider_id: str, name: str) -> _Call:  # noqa: ANN401 - a number, nothing, or junk
        """The call that a piece belongs to.

        A name with an id of its own is a new call even under a used index (Gemini and Ollama number every whole call
        0); an id without a name is not (vLLM makes one up for each piece).
        """
        for call in self._calls:
            if provider_id and call.provider_id == provider_id and index in (None, call.index):
                return call
        if index is None:
            if self._calls and not name:
                return self._calls[-1]
        else:
            for call in reversed(self._calls):
                if call.index == index and not (name and provider_id and call.provider_id):
                    return call
        call = _Call(len(self._calls), index)
        self._calls.append(call)
        return call


def _usage(usage: Json) -> Usage:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    counts = (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        prompt.get("cached_tokens"),
        completion.get("reasoning_tokens"),
        prompt.get("cache_write_tokens"),
    )
    asked_for, answered, cached, reasoned, written = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(asked_for, answered, cached, reasoned, written)
