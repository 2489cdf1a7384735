"""A server of models in a process of its own, which answers as real servers do, well and badly.

    python -m tests.fake_upstream --port 4010

The model's name says how. Streamed or not, unless it says otherwise:

    fake                  32 tokens: "word1 word2 … word32", usage
    bench-N               the same with N tokens
    fake-slow-Nms         the same, N ms before each token
    fake-tool             calls the first tool with {"city": "Oslo"}; once a tool's result is there, answers as `fake`
    fake-history          answers what it was sent, one "role: text" a line (a call is "call NAME")
    fake-S                HTTP status S (400 to 599) with an error in OpenAI's shape, always
    fake-S-then-ok[-N]    the same N times (1) for each last message, then as `fake`; 429 says `retry-after: 0`
    fake-hang             no answer, not even headers
    fake-hang-headers     headers and then nothing
    fake-hang-middle      three tokens and then nothing
    fake-hang-end         all of it and the finish reason, and then nothing
    fake-late-end         the body's end comes a little after [DONE]
    fake-hold-NAME        three tokens, the rest after POST /release/NAME
    fake-gate-NAME        nothing but headers before POST /release/NAME
    fake-comments         comments for ever and no token
    fake-cut              three tokens, then the body ends as if it were whole
    fake-reset            three tokens, then the connection breaks
    fake-drop             the connection breaks before any answer
    fake-echo-key         400 with our key in the message
    fake-llama-context    an empty stream, and without streaming the error: the prompt is too long
    fake-SCRIPT           a peculiarity of tests/fake_scripts.py, bytes as they are, streamed or not
    fake-REFUSAL          an error of tests/fake_scripts.py
    fake-context-N, …     a context of N tokens, and summaries from every model: tests/fake_context.py

POST /v1/responses does the same in the other API, with the scripts of tests/fake_responses.py.

GET /requests: the last 1000 requests, oldest first, as {"body", "headers", "port", "dropped"} (the port that
the client sent from; whether it left before the end). GET /v1/models. GET /readyz.
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
from tests import fake_responses
from tests.fake_context import CONTEXT, add_counting, over_context, summary_of, tokens_of
from tests.fake_scripts import (
    CHAT,
    DONE,
    REFUSALS,
    SCRIPTS,
    USAGE_CHUNK,
    Script,
    Voice,
    chunk,
    error_body,
    sse,
    tool,
    usage,
    whole,
)
from tests.running import Part

Json = dict[str, Any]
TOKENS = 32
FIRST_TOKENS = 3
LATE_SECONDS = 0.03
MODELS = ["fake", "fake-tool"]


def fake_upstream_in(logs: Path) -> Part:
    """The server as a process that a test can kill and start again; its output goes to `logs`."""
    port = free_port()
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONWARNINGS": "error", "PORT": str(port)}
    return Part(port, lambda: start_module("tests.fake_upstream", environment, logs, port))


@dataclass
class Fake:
    requests: collections.deque[Json] = field(default_factory=lambda: collections.deque(maxlen=1000))
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    gates: dict[str, asyncio.Event] = field(default_factory=lambda: collections.defaultdict(asyncio.Event))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        record: Json = {"body": body, "headers": headers, "port": port, "dropped": False}
        self.requests.append(record)
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            record["dropped"] = True
            raise

    async def _answer(self, request: web.Request, body: Json) -> web.StreamResponse:
        name = body["model"].removeprefix("fake-")
        native = request.path.endswith("/responses")
        scripts = fake_responses.SCRIPTS if native else SCRIPTS
        if name in scripts:
            return await _send(request, scripts[name].pieces, scripts[name].content_type)
        if native:
            body = fake_responses.as_chat(body)
        if refusal := self._refusal(request, body, name) or over_context(body, name):
            return refusal
        if name == "drop":
            return _break(request)
        if name == "comments":
            return await _send(request, itertools.repeat(b": working\n\n"), "text/event-stream", 0.02)
        if name == "hang":
            await asyncio.Event().wait()
        if name == "tool" and body["messages"][-1]["role"] != "tool":
            script = fake_responses.called(body) if native else _call_tool(body)
            return await _send(request, script.pieces, script.content_type)
        return await self._speak(request, body, name, fake_responses.VOICE if native else CHAT)

    def _refusal(self, request: web.Request, body: Json, name: str) -> web.Response | None:
        if error := fake_responses.refused(body):
            return web.Response(status=400, body=error)
        if name in REFUSALS:
            status, refusal, headers = REFUSALS[name]
            return web.Response(status=status, body=refusal, headers=headers)
        if name == "llama-context":
            # A stream that is empty; who asks without one learns why.
            if body.get("stream"):
                return web.Response(body=b"", content_type="text/event-stream")
            return web.Response(status=500, body=REFUSALS["context-llama"][1])
        if name == "echo-key":
            return web.Response(status=400, body=error_body(400, f"bad key {request.headers['Authorization']}"))
        if match := re.fullmatch(r"([45]\d\d)|([45]\d\d)-then-ok(?:-(\d+))?", name):
            always, once, times = match.groups()
            key = f"{name} {_text(body['messages'][-1])}"
            if always or self.failures[key] < int(times or 1):
                self.failures[key] += 1
                status = int(always or once)
                headers = {"Retry-After": "0"} if status == 429 else {}
                return web.Response(status=status, body=error_body(status), headers=headers)
        return None

    async def _speak(self, request: web.Request, body: Json, name: str, voice: Voice) -> web.StreamResponse:
        words = self._words(body, name)
        text = "".join(words)
        count = usage(tokens_of(body["messages"]), len(words))
        if not body.get("stream"):
            await self._pause(request, name, FIRST_TOKENS)
            return web.Response(body=voice.whole(text, count), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if voice.start:
            await response.write(voice.start)
        for number, word in enumerate(words):
            await self._pause(request, name, number)
            if number == FIRST_TOKENS and name == "cut":
                await response.write_eof()
                return response
            await response.write(voice.say(word))
        await response.write(voice.stop(text))
        await self._pause(request, name, len(words))
        await response.write(voice.tail(text, count))
        if name == "late-end":
            await asyncio.sleep(LATE_SECONDS)
        await response.write_eof()
        return response

    def _words(self, body: Json, name: str) -> list[str]:
        if summary := summary_of(body["messages"]):
            return [summary]
        if name in ("history", "foreign"):
            return ["\n".join(f"{message['role']}: {_text(message)}" for message in body["messages"])]
        if CONTEXT.fullmatch(name):
            return ["word1"]
        tokens = int(name[6:]) if name.startswith("bench-") else TOKENS
        return [f"word{number} " for number in range(1, tokens)] + [f"word{tokens}"]

    async def _pause(self, request: web.Request, name: str, number: int) -> None:
        """What is to happen before this token."""
        if slow := re.fullmatch(r"slow-(\d+)ms", name):
            await asyncio.sleep(int(slow[1]) / 1000)
        if (number, name) in ((0, "hang-headers"), (FIRST_TOKENS, "hang-middle"), (TOKENS, "hang-end")):
            await asyncio.Event().wait()
        if name.startswith("gate-") or (number == FIRST_TOKENS and name.startswith("hold-")):
            await self.gates[name[5:]].wait()
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


def _call_tool(body: Json) -> Script:
    name = body["tools"][0]["function"]["name"]
    call = {"id": "call_fake", "type": "function", "function": {"name": name, "arguments": '{"city": "Oslo"}'}}
    if not body.get("stream"):
        answer = whole({"content": None, "tool_calls": [call]}, "tool_calls", usage=usage(10, 2))
        return Script([answer], "application/json")
    pieces = [
        tool({"index": 0, **call, "function": {"name": name, "arguments": ""}}),
        tool({"index": 0, "function": {"arguments": '{"city": '}}),
        tool({"index": 0, "function": {"arguments": '"Oslo"}'}}),
        sse(chunk(finish="tool_calls")) + USAGE_CHUNK + DONE,
    ]
    return Script(pieces)


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
    for root in ("", "/vllm", "/llama"):
        app.router.add_post(f"{root}/v1/chat/completions", fake.answer)
        app.router.add_post(f"{root}/v1/responses", fake.answer)
    add_counting(app.router)
    app.router.add_post("/v1/responses/input_tokens", fake_responses.count)
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
