"""What real chat-completions servers send, as bytes: the peculiarities that `tests/fake_upstream.py` can play."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

Json = dict[str, Any]
HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1>proxy-7.internal</body></html>"


def sse(value: Json) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(delta: Json | None = None, finish: str | None = None, **fields: Any) -> Json:
    """One chunk of a stream; `fields` replace or add top-level ones."""
    choice: Json = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "fake"}
    return {**head, "choices": [choice], **fields}


def say(text: str, finish: str | None = None, **fields: Any) -> bytes:
    return sse(chunk({"content": text}, finish, **fields))


def usage(prompt: int, completion: int) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def whole(message: Json, finish: str | None = "stop", **fields: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "fake"}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return orjson.dumps({**head, "choices": [choice], **fields})


def error_body(status: int, message: str = "", code: str | None = None) -> bytes:
    text = message or f"fake error {status}"
    return orjson.dumps({"error": {"message": text, "type": "fake_error", "param": None, "code": code}})


STOP = sse(chunk(finish="stop"))
DONE = b"data: [DONE]\n\n"
USAGE_CHUNK = sse(chunk(choices=[], usage=usage(10, 2)))


def tool(piece: Json, finish: str | None = None) -> bytes:
    return sse(chunk({"tool_calls": [piece]}, finish))


def likely(text: str, logprob: float, others: list[tuple[str, float]]) -> Json:
    """A choice with log probabilities; a server that knows no bytes, and null for what is too unlikely."""
    top: list[Json] = [{"token": token, "logprob": value, "bytes": None} for token, value in others]
    top.append({"token": "never", "logprob": None})
    content = [{"token": text or "~", "logprob": logprob, "top_logprobs": top}]
    return {"index": 0, "delta": {"content": text}, "logprobs": {"content": content}, "finish_reason": None}


def events(*pieces: bytes, kind: str = "text/event-stream") -> "Script":
    return Script(list(pieces), kind)


@dataclass(frozen=True)
class Script:
    """Bytes to send, each piece with a write of its own."""

    pieces: list[bytes]
    content_type: str = "text/event-stream"


@dataclass(frozen=True)
class Voice:
    """How an answer is told in one of the two APIs: what comes before the words, each word, what ends them, and the
    end with the usage; or all of it as one document."""

    start: bytes
    say: Callable[[str], bytes]
    stop: Callable[[str], bytes]
    tail: Callable[[str, Json], bytes]
    whole: Callable[[str, Json], bytes]


CHAT = Voice(
    b"",
    say,
    lambda _: STOP,
    lambda _, count: sse(chunk(choices=[], usage=count)) + DONE,
    lambda text, count: whole({"content": text}, usage=count),
)
HELLO = say("Hello") + say(" world")
SCRIPTS: dict[str, Script] = {
    "azure": events(
        sse(chunk(choices=[], prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}])),
        sse(chunk({"role": "assistant", "content": ""})),
        sse(chunk(choices=[{"index": 0, "content_filter_results": {"hate": {"filtered": False}}}])),
        HELLO,
        STOP,
        sse(chunk(choices=[{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}}])),
        DONE,
    ),
    "vllm": events(
        sse(chunk({"reasoning_content": "Let me"})) + sse(chunk({"reasoning_content": " think"})),
        say("Hello") + say(" world", "stop"),
        USAGE_CHUNK + DONE,
    ),
    "reasoning": events(sse(chunk({"reasoning": "Let me think", "content": None})), HELLO, STOP, DONE),
    "openrouter": events(b": OPENROUTER PROCESSING\n\n", b": OPENROUTER PROCESSING\n\n", HELLO, STOP, DONE),
    "openrouter-error": events(
        HELLO,
        sse(chunk({"content": ""}, "error", error={"code": 502, "message": "Provider returned error"})),
        DONE,
    ),
    "openrouter-error-first": events(sse(chunk({}, "error", error={"code": 400, "message": "Too hot"})), DONE),
    "finish-error": events(HELLO, sse(chunk(finish="error")), DONE),
    "vllm-error": events(HELLO, sse({"error": {"object": "error", "message": "CUDA", "code": 500}}), DONE),
    "vllm-error-first": events(sse({"object": "error", "message": "maximum context length is 9", "code": 400}), DONE),
    "ollama": events(
        sse(chunk({"role": "assistant", "content": "Hello"}, "")),
        sse(chunk({"role": "assistant", "content": " world"}, "")),
        sse(chunk({"role": "assistant", "content": ""}, "length")),
        DONE,
    ),
    "usage-null": events(say("Hello", usage=None), say(" world", usage=None), STOP, USAGE_CHUNK, DONE),
    "usage-text": events(HELLO, STOP, sse({"choices": [], "usage": {"prompt_tokens": "many"}}), DONE),
    "no-usage": events(HELLO, STOP, DONE),
    "no-space": events((HELLO + STOP + DONE).replace(b"data: ", b"data:")),
    "crlf": events(*((HELLO + STOP + DONE).replace(b"\n", b"\r\n").partition(b"\r\n\r"))),
    "three-lf": events(*((HELLO + STOP + DONE).replace(b"\n\n", b"\n\n\n").partition(b"\n\n"))),
    "event-lines": events(b"event: message\nid: 1\n" + say("Hello") + b"retry: 5\n\n" + say(" world"), STOP, DONE),
    "bytewise": events(*(bytes([byte]) for byte in say("Grüße 🌍")), STOP, DONE),
    "no-done": events(HELLO, STOP),
    "no-last-line": events(HELLO, STOP.rstrip()),
    "done-without-finish": events(HELLO, DONE),
    "after-done": events(HELLO, STOP, DONE, say("never")),
    "empty": events(DONE),
    "parts": events(
        sse(chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Let me think"}]}]})),
        sse(chunk({"content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]})),
        STOP,
        DONE,
    ),
    "refusal": events(sse(chunk({"content": None, "refusal": "I won't"})), STOP, DONE),
    "likely": events(
        sse(chunk(choices=[likely("Hel", -0.25, [("Hel", -0.25), ("Good", -1.5)])])),
        sse(chunk(choices=[likely("", -0.5, [])])),
        sse(chunk(choices=[likely("lo", -2, [])])),
        STOP,
        DONE,
    ),
    "city": events(say('{"city": "Oslo", '), say('"people": 700000}'), STOP, USAGE_CHUNK + DONE),
    "nul": events(sse(chunk({"content": "one\0two \\u0000"})), STOP, DONE),
    "text-then-tool": events(
        HELLO, tool({"index": 0, "id": "a", "function": {"name": "now", "arguments": "{}"}}, "tool_calls"), DONE
    ),
    "content-null": events(sse(chunk({"role": "assistant", "content": None})), HELLO, STOP, DONE),
    "length": events(HELLO, sse(chunk(finish="length")), DONE),
    "filter": events(HELLO, sse(chunk(finish="content_filter")), DONE),
    "tool-pieces": events(
        tool({"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}),
        tool({"index": 0, "function": {"arguments": '{"city":'}}),
        tool({"index": 1, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}}),
        tool({"index": 0, "function": {"arguments": '"Oslo"}'}}),
        sse(chunk(finish="tool_calls")),
        DONE,
    ),
    "tool-no-index": events(
        tool({"id": "", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}),
        tool({"id": None, "function": {"name": None, "arguments": '"Oslo"}'}}),
        tool({"type": "function", "function": {"name": "time", "arguments": {"zone": "CET"}}}, "stop"),
        DONE,
    ),
    "tool-by-id": events(
        tool({"id": "a", "function": {"name": "weather", "arguments": "{"}}),
        tool({"id": "b", "function": {"name": "time", "arguments": "{"}}),
        tool({"id": "a", "function": {"arguments": "}"}}),
        tool({"id": "b", "function": {"name": "time", "arguments": "}"}}, "tool_calls"),
        DONE,
    ),
    "tool-index-0": events(
        tool({"index": 0, "id": "a", "function": {"name": "weather", "arguments": "{}"}}),
        tool({"index": 0, "id": "b", "function": {"name": "time", "arguments": "{}"}}, "tool_calls"),
        DONE,
    ),
    "tool-random-ids": events(
        tool({"index": 0, "id": "x1", "function": {"name": "weather", "arguments": "{"}}),
        tool({"index": 0, "id": "x2", "function": {"arguments": "}"}}, "tool_calls"),
        DONE,
    ),
    "tool-no-arguments": events(tool({"index": 0, "id": "a", "function": {"name": "now"}}, "tool_calls"), DONE),
    "tool-late-name": events(
        tool({"index": 0, "id": "a", "function": {"arguments": "{"}}),
        tool({"index": 0, "function": {"name": "now", "arguments": "}"}}, "tool_calls"),
        DONE,
    ),
    "json": Script([whole({"content": "Hello world"}, usage=usage(10, 2))], "application/json"),
    "json-blank": Script([b"\n", b"\n", whole({"content": "Hello world"}, usage=usage(10, 2))], "application/json"),
    "json-error": Script([error_body(0, "the model is overloaded")], "application/json"),
    "json-no-finish": Script([whole({"content": "Hello world"}, None)], "application/json"),
    "sse": events(HELLO, STOP, USAGE_CHUNK, DONE),
    "sse-as-text": events(HELLO, STOP, DONE, kind="text/plain"),
    "html": Script([HTML], "text/html"),
    "broken-json": events(HELLO, b'data: {"choices": [\n\n', DONE),
    "odd-shape": events(HELLO, sse({"choices": [7]}), DONE),
}

REFUSALS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "context": (400, error_body(400, "Too many tokens", "context_length_exceeded"), {}),
    "context-vllm": (400, orjson.dumps({"object": "error", "message": "maximum context length is 9 tokens"}), {}),
    "context-llama": (500, error_body(500, "Requested tokens (9) exceed context window of 8"), {}),
    "long-message": (400, error_body(400, "word " * 500), {}),
    "html-in-json": (400, error_body(400, HTML.decode()), {}),
    "detail": (422, orjson.dumps({"detail": [{"loc": ["body"], "msg": "Field required"}]}), {}),
    "html-404": (404, HTML, {}),
    "html-502": (502, HTML, {}),
    "redirect": (307, b"", {"Location": "/v1/models"}),
    "quota": (429, error_body(429, "no money", "insufficient_quota"), {}),
    "429-later": (429, error_body(429), {"Retry-After": "77"}),
}
