"""What was said, as OpenTelemetry's conventions for generative AI write it into a span, where the operator wants it."""

import orjson

from api.upstream.exchange import Ask, Delta, Finish, Json, Reasoning, Refusal, Summary, Text, ToolCall

# Of one text, and of all messages of a question together, the newest first: a span is kept in memory until it is sent.
TEXT_CHARACTERS = 8192
MESSAGES_BYTES = 64 * 1024
# What a message's parts of text are called in the Responses API.
TEXTS = {"text", "input_text", "output_text", "refusal", "reasoning_text", "summary_text"}


def instructions(ask: Ask) -> str:
    return orjson.dumps([_text(ask.instructions)] if ask.instructions else []).decode()


def input_messages(ask: Ask) -> str:
    """A JSON array, as all of these; of a long history its newest messages."""
    told: list[bytes] = []
    size = 0
    for item in reversed(ask.items):
        message = orjson.dumps(_message(item))
        size += len(message)
        if size > MESSAGES_BYTES:
            break
        told.append(message)
    return (b"[%b]" % b",".join(reversed(told))).decode()


def _message(item: Json) -> Json:
    match item:
        case {"type": "message", "role": role, "content": content}:
            return {"role": role, "parts": _parts(content)}
        case {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}:
            call = {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments[:TEXT_CHARACTERS]}
            return {"role": "assistant", "parts": [call]}
        case {"type": "function_call_output", "call_id": call_id, "output": output}:
            result = {"type": "tool_call_response", "id": call_id, "response": _parts(output)}
            return {"role": "tool", "parts": [result]}
        case {"type": kind}:
            return {"role": "assistant", "parts": [{"type": kind}]}
    raise AssertionError("every item has a type")


def _parts(content: str | list[Json]) -> list[Json]:
    """Images and files are told of, and not told."""
    if isinstance(content, str):
        return [_text(content)]
    return [
        _text(part.get("text") or part.get("refusal") or "") if part["type"] in TEXTS else {"type": part["type"]}
        for part in content
    ]


def _text(text: str, kind: str = "text") -> Json:
    return {"type": kind, "content": text[:TEXT_CHARACTERS]}


class Heard:
    """The pieces of an answer."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self._reason = "error"

    def add(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            match delta:
                case Text(text) | Refusal(text):
                    self._texts.setdefault("text", []).append(text)
                case Reasoning(text) | Summary(_, text):
                    self._texts.setdefault("reasoning", []).append(text)
                case ToolCall(number, call_id, name, arguments):
                    self._calls.setdefault(number, (call_id, name, []))[2].append(arguments)
                case Finish(reason):
                    self._reason = "tool_call" if reason == "tool_calls" else reason
                case _:
                    pass

    def messages(self) -> str:
        parts = [_text("".join(texts), kind) for kind, texts in self._texts.items()]
        for call_id, name, pieces in self._calls.values():
            arguments = "".join(pieces)[:TEXT_CHARACTERS]
            parts.append({"type": "tool_call", "id": call_id, "name": name, "arguments": arguments})
        return orjson.dumps([{"role": "assistant", "parts": parts, "finish_reason": self._reason}]).decode()
