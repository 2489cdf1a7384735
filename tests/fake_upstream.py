"""A chat-completions server in a process of its own, which answers as real servers do, well and badly.

    python -m tests.fake_upstream --port 4010

The model's name says how. Streamed or not, unless it says otherwise:

    fake                  32 tokens: "word1 word2 … word32", usage
    fake-N                the same with N tokens (`bench-N` too)
    fake-Nms              the same, N ms before each token
    fake-tool             calls the first tool with {"city": "Oslo"}; once a tool's result is there, answers as `fake`
    fake-history          answers what it was sent, one "role: text" a line (a call is "call NAME")
    fake-status-S         HTTP status S with an error in OpenAI's shape, always
    fake-S-then-ok[-N]    the same N times (1) for each last message, then as `fake`; 429 says `retry-after: 0`
    fake-hang             no answer, not even headers
    fake-hang-headers     headers and then nothing
    fake-hang-middle      three tokens and then nothing
    fake-hold-NAME        three tokens, the rest after POST /release/NAME
    fake-comments         comments for ever and no token
    fake-cut              three tokens, then the body ends as if it were whole
    fake-reset            three tokens, then the connection breaks
    fake-drop             the connection breaks before any answer
    fake-echo-key         400 with our key in the message
    fake-SCRIPT           a peculiarity of SCRIPTS below, bytes as they are, streamed or not

    fake-REFUSAL          an error of REFUSALS below

GET /requests: the last 1000 requests, oldest first, as {"body", "headers", "dropped"} (`dropped`: the client left
before the end). GET /v1/models. GET /readyz.
"""

import argparse
import asyncio
import collections
import itertools
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from local.children import free_port
from local.parts import start_module
from tests.running import Part

Json = dict[str, Any]
TOKENS = 32
FIRST_TOKENS = 3
HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1>proxy-7.internal</body></html>"
MODELS = ["fake", "fake-tool"]


def fake_upstream_in(logs: Path) -> Part:
    """The server as a process that a test can kill and start again; its output goes to `logs`."""
    port = free_port()
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONWARNINGS": "error", "PORT": str(port)}
    return Part(port, lambda: start_module("tests.fake_upstream", environment, logs, port))


def sse(value: Json | str, end: bytes = b"\n\n") -> bytes:
    return b"data: " + (value.encode() if isinstance(value, str) else orjson.dumps(value)) + end


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
        "prompt_tokens_details": {"cached_tokens": 2},
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


def _tool(piece: Json, finish: str | None = None) -> bytes:
    return sse(chunk({"tool_calls": [piece]}, finish))


def _events(*pieces: bytes, kind: str = "text/event-stream") -> "Script":
    return Script(list(pieces), kind)


@dataclass(frozen=True)
class Script:
    """Bytes to send, each piece with a write of its own."""

    pieces: list[bytes]
    content_type: str = "text/event-stream"


HELLO = say("Hello") + say(" world")
SCRIPTS: dict[str, Script] = {
    "azure": _events(
        sse(chunk(choices=[], prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}])),
        sse(chunk({"role": "assistant", "content": ""})),
        sse(chunk(choices=[{"index": 0, "content_filter_results": {"hate": {"filtered": False}}}])),
        HELLO,
        STOP,
        sse(chunk(choices=[{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}}])),
        DONE,
    ),
    "vllm": _events(
        sse(chunk({"reasoning_content": "Let me"})) + sse(chunk({"reasoning_content": " think"})),
        say("Hello") + say(" world", "stop"),
        USAGE_CHUNK + DONE,
    ),
    "reasoning": _events(sse(chunk({"reasoning": "Let me think", "content": None})), HELLO, STOP, DONE),
    "openrouter": _events(b": OPENROUTER PROCESSING\n\n", b": OPENROUTER PROCESSING\n\n", HELLO, STOP, DONE),
    "openrouter-error": _events(
        HELLO,
        sse(chunk({"content": ""}, "error", error={"code": 502, "message": "Provider returned error"})),
        DONE,
    ),
    "openrouter-error-first": _events(sse(chunk({}, "error", error={"code": 400, "message": "Too hot"})), DONE),
    "vllm-error": _events(HELLO, sse({"error": {"object": "error", "message": "CUDA", "code": 500}}), DONE),
    "vllm-error-first": _events(sse({"object": "error", "message": "maximum context length is 9", "code": 400}), DONE),
    "ollama": _events(
        sse(chunk({"role": "assistant", "content": "Hello"}, "")),
        sse(chunk({"role": "assistant", "content": " world"}, "")),
        sse(chunk({"role": "assistant", "content": ""}, "stop")),
        DONE,
    ),
    "usage-null": _events(say("Hello", usage=None), say(" world", usage=None), STOP, USAGE_CHUNK, DONE),
    "no-usage": _events(HELLO, STOP, DONE),
    "no-space": _events((HELLO + STOP + DONE).replace(b"data: ", b"data:")),
    "crlf": _events(*((HELLO + STOP + DONE).replace(b"\n", b"\r\n").partition(b"\r\n\r"))),
    "three-lf": _events(*((HELLO + STOP + DONE).replace(b"\n\n", b"\n\n\n").partition(b"\n\n"))),
    "event-lines": _events(b"event: message\nid: 1\n" + say("Hello") + b"retry: 5\n\n" + say(" world"), STOP, DONE),
    "bytewise": _events(*(bytes([byte]) for byte in sse('{"choices":[{"delta":{"content":"Grüße 🌍"}}]}')), STOP, DONE),
    "no-done": _events(HELLO, STOP),
    "no-last-line": _events(HELLO, STOP.rstrip()),
    "done-without-finish": _events(HELLO, DONE),
    "after-done": _events(HELLO, STOP, DONE, say("never")),
    "empty": _events(DONE),
    "parts": _events(
        sse(chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Let me think"}]}]})),
        sse(chunk({"content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]})),
        STOP,
        DONE,
    ),
    "refusal": _events(sse(chunk({"content": None, "refusal": "I won't"})), STOP, DONE),
    "content-null": _events(sse(chunk({"role": "assistant", "content": None})), HELLO, STOP, DONE),
    "length": _events(HELLO, sse(chunk(finish="length")), DONE),
    "filter": _events(HELLO, sse(chunk(finish="content_filter")), DONE),
    "tool-pieces": _events(
        _tool({"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}),
        _tool({"index": 0, "function": {"arguments": '{"city":'}}),
        _tool({"index": 1, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}}),
        _tool({"index": 0, "function": {"arguments": '"Oslo"}'}}),
        sse(chunk(finish="tool_calls")),
        DONE,
    ),
    "tool-no-index": _events(
        _tool({"id": "", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}),
        _tool({"id": None, "function": {"name": None, "arguments": '"Oslo"}'}}),
        _tool({"type": "function", "function": {"name": "time", "arguments": {"zone": "CET"}}}, "stop"),
        DONE,
    ),
    "tool-index-0": _events(
        _tool({"index": 0, "id": "a", "function": {"name": "weather", "arguments": "{}"}}),
        _tool({"index": 0, "id": "b", "function": {"name": "time", "arguments": "{}"}}, "tool_calls"),
        DONE,
    ),
    "tool-random-ids": _events(
        _tool({"index": 0, "id": "x1", "function": {"name": "weather", "arguments": "{"}}),
        _tool({"index": 0, "id": "x2", "function": {"arguments": "}"}}, "tool_calls"),
        DONE,
    ),
    "tool-no-arguments": _events(_tool({"index": 0, "id": "a", "function": {"name": "now"}}, "tool_calls"), DONE),
    "tool-late-name": _events(
        _tool({"index": 0, "id": "a", "function": {"arguments": "{"}}),
        _tool({"index": 0, "function": {"name": "now", "arguments": "}"}}, "tool_calls"),
        DONE,
    ),
    "json": Script([whole({"content": "Hello world"}, usage=usage(10, 2))], "application/json"),
    "json-error": Script([error_body(0, "the model is overloaded")], "application/json"),
    "json-no-finish": Script([whole({"content": "Hello world"}, None)], "application/json"),
    "sse": _events(HELLO, STOP, USAGE_CHUNK, DONE),
    "sse-as-text": _events(HELLO, STOP, DONE, kind="text/plain"),
    "html": Script([HTML], "text/html"),
    "broken-json": _events(HELLO, b'data: {"choices": [\n\n', DONE),
    "odd-shape": _events(HELLO, sse({"choices": [7]}), DONE),
}

REFUSALS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "context": (400, error_body(400, "Too many tokens", "context_length_exceeded"), {}),
    "context-vllm": (400, orjson.dumps({"object": "error", "message": "maximum context length is 9 tokens"}), {}),
    "long-message": (400, error_body(400, "word " * 500), {}),
    "detail": (422, orjson.dumps({"detail": [{"loc": ["body"], "msg": "Field required"}]}), {}),
    "html-404": (404, HTML, {}),
    "html-502": (502, HTML, {}),
    "redirect": (307, b"", {"Location": "/v1/models"}),
    "quota": (429, error_body(429, "no money", "insufficient_quota"), {}),
    "429-later": (429, error_body(429), {"Retry-After": "77"}),
}


@dataclass
class Fake:
    requests: collections.deque[Json] = field(default_factory=lambda: collections.deque(maxlen=1000))
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    gates: dict[str, asyncio.Event] = field(default_factory=lambda: collections.defaultdict(asyncio.Event))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        record: Json = {"body": body, "headers": {k.lower(): v for k, v in request.headers.items()}, "dropped": False}
        self.requests.append(record)
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            record["dropped"] = True
            raise

    async def _answer(self, request: web.Request, body: Json) -> web.StreamResponse:
        name = body["model"].removeprefix("fake-").removeprefix("bench-")
        if name in SCRIPTS:
            return await _send(request, SCRIPTS[name].pieces, SCRIPTS[name].content_type)
        if refusal := self._refusal(request, body, name):
            return refusal
        if name == "drop":
            return _break(request)
        if name == "comments":
            return await _send(request, itertools.repeat(b": working\n\n"), "text/event-stream", 0.02)
        if name == "hang":
            await asyncio.Event().wait()
        if name == "tool" and body["messages"][-1]["role"] != "tool":
            return await _call_tool(request, body)
        return await self._speak(request, body, name)

    def _refusal(self, request: web.Request, body: Json, name: str) -> web.Response | None:
        if name in REFUSALS:
            status, refusal, headers = REFUSALS[name]
            return web.Response(status=status, body=refusal, headers=headers)
        if name == "echo-key":
            return web.Response(status=400, body=error_body(400, f"bad key {request.headers['Authorization']}"))
        if match := re.fullmatch(r"status-(\d+)|(\d+)-then-ok(?:-(\d+))?", name):
            always, once, times = match.groups()
            key = f"{name} {_text(body['messages'][-1])}"
            if always or self.failures[key] < int(times or 1):
                self.failures[key] += 1
                status = int(always or once)
                headers = {"Retry-After": "0"} if status == 429 else {}
                return web.Response(status=status, body=error_body(status), headers=headers)
        return None

    async def _speak(self, request: web.Request, body: Json, name: str) -> web.StreamResponse:
        words = self._words(body, name)
        count = usage(sum(len(_text(message).split()) for message in body["messages"]), len(words))
        if not body.get("stream"):
            await self._pause(request, name, FIRST_TOKENS)
            return web.Response(body=whole({"content": "".join(words)}, usage=count), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, word in enumerate(words):
            await self._pause(request, name, number)
            if number == FIRST_TOKENS and name == "cut":
                await response.write_eof()
                return response
            await response.write(say(word))
        await response.write(STOP + sse(chunk(choices=[], usage=count)) + DONE)
        await response.write_eof()
        return response

    def _words(self, body: Json, name: str) -> list[str]:
        if name == "history":
            return ["\n".join(f"{message['role']}: {_text(message)}" for message in body["messages"])]
        tokens = int(name) if name.isdecimal() else TOKENS
        return [f"word{number} " for number in range(1, tokens)] + [f"word{tokens}"]

    async def _pause(self, request: web.Request, name: str, number: int) -> None:
        """What is to happen before this token."""
        if name.endswith("ms") and name[:-2].isdecimal():
            await asyncio.sleep(int(name[:-2]) / 1000)
        if (number, name) in ((0, "hang-headers"), (FIRST_TOKENS, "hang-middle")):
            await asyncio.Event().wait()
        if number == FIRST_TOKENS and name.startswith("hold-"):
            await self.gates[name.removeprefix("hold-")].wait()
        if number == FIRST_TOKENS and name == "reset":
            _break(request)
            raise ConnectionError("broken on purpose")

    async def release(self, request: web.Request) -> web.Response:
        self.gates[request.match_info["name"]].set()
        return web.Response()

    async def list_requests(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(list(self.requests)), content_type="application/json")


def _break(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.StreamResponse()


async def _call_tool(request: web.Request, body: Json) -> web.StreamResponse:
    name = body["tools"][0]["function"]["name"]
    call = {"id": "call_fake", "type": "function", "function": {"name": name, "arguments": '{"city": "Oslo"}'}}
    if not body.get("stream"):
        answer = whole({"content": None, "tool_calls": [call]}, "tool_calls", usage=usage(10, 2))
        return await _send(request, [answer], "application/json")
    pieces = [
        _tool({"index": 0, **call, "function": {"name": name, "arguments": ""}}),
        _tool({"index": 0, "function": {"arguments": '{"city": '}}),
        _tool({"index": 0, "function": {"arguments": '"Oslo"}'}}),
        sse(chunk(finish="tool_calls")) + USAGE_CHUNK + DONE,
    ]
    return await _send(request, pieces, "text/event-stream")


async def _send(
    request: web.Request, pieces: Iterable[bytes], content_type: str, pause_seconds: float = 0
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause_seconds)
    await response.write_eof()
    return response


def _text(message: Json) -> str:
    if calls := message.get("tool_calls"):
        return " ".join(f"call {call['function']['name']}" for call in calls)
    content = message["content"] or ""
    return content if isinstance(content, str) else " ".join(part.get("text", part["type"]) for part in content)


async def _models(_: web.Request) -> web.Response:
    models = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "fake"} for name in MODELS]
    return web.Response(body=orjson.dumps({"object": "list", "data": models}), content_type="application/json")


async def _ready(_: web.Request) -> web.Response:
    return web.Response()


def make_app() -> web.Application:
    fake = Fake()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", fake.answer)
    app.router.add_post("/release/{name}", fake.release)
    app.router.add_get("/requests", fake.list_requests)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/readyz", _ready)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "0")) or None)
    options = parser.parse_args()
    if options.port is None:
        sys.exit("--port or PORT is missing")
    web.run_app(
        make_app(),
        host="127.0.0.1",
        port=options.port,
        handler_cancellation=True,
        access_log=None,
        print=lambda *_: None,
    )
