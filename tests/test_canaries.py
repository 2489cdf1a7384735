"""What people say, and what must stay secret, is planted in every input: no process may tell it to anybody else.

Looked at are the logs at the level DEBUG, the metrics, the traces, what other tenants get, and operators' commands.
"""

import base64
import hashlib
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from core.queue import QUEUE
from local.children import HOST, free_port
from local.parts import ROOT
from tests.conftest import StartService
from tests.entries import broken_item, item, push
from tests.fake_collector import Collector, collecting
from tests.running import Service, worker_command
from tests.scraping import urls
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
SECONDS = 20.0


class Canaries:
    """Makes words that occur nowhere else."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self.made.setdefault(name, f"cnry{secrets.token_hex(6)}")

    def found_in(self, text: bytes) -> list[str]:
        return sorted(name for name, word in self.made.items() if any(form in text for form in _forms(word)))


def _forms(word: str) -> Iterator[bytes]:
    """As it is, and inside of base64, at each of the three places where it may begin there."""
    yield word.encode()
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + word.encode())[4:-4]


canary = Canaries()


@asynccontextmanager
async def answering(port: int) -> AsyncIterator[list[bytes]]:
    """A provider that repeats what it was sent in its answers and, as the model's name says, in all kinds of errors."""
    asked: list[bytes] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        asked.append(raw + str(request.headers).encode())
        body = orjson.loads(raw)
        said = f"{canary('answer')} {raw.decode()} {request.headers['Authorization']}"
        match body["model"]:
            case "html":
                return web.Response(status=500, text=f"<html>{said}</html>", content_type="text/html")
            case "garbage":
                return web.Response(
                    text=f'{{"choices":[{{"message":{{"content":"{said[:50]}', content_type="application/json"
                )
            case "cut":
                answered = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await answered.prepare(request)
                await answered.write(b"data: " + orjson.dumps({"error": {"message": said, "code": 500}}) + b"\n\n")
                return answered
            case name if name.isdecimal():
                return web.json_response({"error": {"message": said, "code": said, "type": said}}, status=int(name))
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    yield asked
    await runner.cleanup()


def everything() -> Json:
    """A request with a canary in each field that may have one, for either shape of text."""
    encoded = base64.b64encode(canary("file").encode() * 3).decode()
    return {
        "instructions": canary("instructions"),
        "input": [
            {"role": "user", "content": canary("text")},
            {"role": "system", "content": canary("system")},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": canary("part")},
                    {"type": "input_image", "image_url": f"https://images.invalid/{canary('image')}.png"},
                    {
                        "type": "input_file",
                        "filename": f"{canary('filename')}.pdf",
                        "file_data": f"data:application/pdf;base64,{encoded}",
                    },
                ],
            },
            {
                "type": "function_call",
                "call_id": canary("call"),
                "name": "look",
                "arguments": f'{{"a":"{canary("argument")}"}}',
            },
            {"type": "function_call_output", "call_id": canary("call"), "output": canary("output")},
        ],
        "tools": [
            {
                "type": "function",
                "name": canary("tool"),
                "description": canary("description"),
                "parameters": {"type": "object", "properties": {canary("parameter"): {"type": "string"}}},
                "strict": False,
            }
        ],
        "text": {"format": {"type": "json_schema", "name": canary("schema"), "schema": {"title": canary("title")}}},
        "metadata": {canary("key"): canary("value")},
        "safety_identifier": canary("safety"),
        "prompt_cache_key": canary("cache"),
        "user": canary("user"),
    }


def chat() -> Json:
    return {
        "messages": [
            {"role": "system", "content": canary("chat_system")},
            {"role": "user", "name": canary("chat_name"), "content": canary("chat_text")},
        ],
        "metadata": {"note": canary("chat_note")},
        "user": canary("chat_user"),
        "stop": None,
    }


KEYS = "".join(
    f'[[keys]]\ntenant = "{tenant}"\nname = "key"\nsha256 = "{hashlib.sha256(canary(tenant).encode()).hexdigest()}"\n'
    for tenant in ("acme", "beta")
)


@pytest.fixture(scope="module")
async def asked(anyio_backend: str) -> AsyncIterator[tuple[int, list[bytes]]]:  # noqa: ARG001 - one event loop for all
    port = free_port()
    async with answering(port) as sent:
        yield port, sent


@pytest.fixture(scope="module")
async def collector(anyio_backend: str) -> AsyncIterator[Collector]:  # noqa: ARG001 - one event loop for all
    async with collecting(free_port()) as one:
        yield one


@pytest.fixture(scope="module")
async def service(
    start_service: StartService, asked: tuple[int, list[bytes]], collector: Collector, folder: Path, valkey: Any
) -> Service:
    keys = folder / "canary-keys.toml"
    keys.write_text(KEYS, encoding="utf-8")
    async with Redis(host=valkey.host, port=valkey.port) as redis:
        passwords = [f"+{canary('redis_password')}"]
        await redis.acl_setuser("canary", enabled=True, passwords=passwords, keys=["*"], commands=["+@all"])
    return await start_service(
        AUTH="",
        KEYS_FILE=str(keys),
        OPENAI_BASE_URL=f"http://{HOST}:{asked[0]}/v1",
        OPENAI_API_KEY=canary("provider_key"),
        MODEL="fine",
        REDIS_USERNAME="canary",
        REDIS_PASSWORD=canary("redis_password"),
        PG_PASSWORD=canary("postgres_password"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS=f"x-token={canary('collector_key')}",
        LOG_LEVEL="DEBUG",
        UPSTREAM_RETRIES="0",
    )


class Tenant:
    """A client of a tenant that hides something in each header too."""

    def __init__(self, service: Service, key: str) -> None:
        self._service = service
        self._headers = {
            "Authorization": f"Bearer {key}",
            "User-Agent": canary("agent"),
            "Cookie": canary("cookie"),
            "OpenAI-Organization": canary("organization"),
            "X-Request-Id": canary("request_id"),
            "tracestate": f"{canary('tracestate')}=1",
            "baggage": f"{canary('baggage')}=1",
            "Referer": f"https://pages.invalid/{canary('referer')}",
        }
        self.answers: list[tuple[int, bytes]] = []

    async def call(self, method: str, path: str, body: Json | bytes | None = None, key: str = "") -> Json:
        headers = {**self._headers, "Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        data = orjson.dumps(body) if isinstance(body, dict) else body
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            url = f"{self._service.url}{path}"
            async with http.request(method, url, data=data, headers=headers) as answer:
                self.answers.append((answer.status, await answer.read()))
        try:
            told: Json = orjson.loads(self.answers[-1][1])
        except orjson.JSONDecodeError:
            return {}  # a stream
        return told

    async def over_a_websocket(self, *frames: bytes) -> None:
        url = f"{self._service.url.replace('http', 'ws')}/responses?secret={canary('query')}"
        async with connect(url, additional_headers=self._headers, user_agent_header=None) as socket:
            for frame in frames:
                await socket.send(frame.decode())
                async for message in socket:
                    if orjson.loads(message)["type"] in ("response.completed", "response.failed", "error"):
                        break


async def talk_of_everything(acme: Tenant) -> tuple[str, str]:
    """All ways in, also those that lead to an error. A conversation and a response."""
    begun = {
        "metadata": {"topic": canary("topic")},
        "items": [{"type": "message", "role": "user", "content": canary("first")}],
    }
    conversation = (await acme.call("POST", "/conversations", begun, canary("idempotency")))["id"]
    for streamed in (False, True):
        body = {**everything(), "conversation": conversation, "stream": streamed}
        await acme.call("POST", "/responses", body, canary(f"idempotency_{streamed}"))
        await acme.call("POST", "/responses", {**body, "input": canary("other")}, canary(f"idempotency_{streamed}"))
    response = (await acme.call("POST", "/responses", everything()))["id"]
    for model in ("400", "401", "404", "429", "500", "html", "garbage", "cut"):
        for streamed in (False, True):
            await acme.call("POST", "/responses", {**everything(), "model": model, "stream": streamed})
    for streamed in (False, True):
        await acme.call("POST", "/chat/completions", {**chat(), "stream": streamed})
        await acme.call("POST", "/chat/completions", {**chat(), "model": "500", "stream": streamed})
    raw = orjson.dumps(everything())
    wrong = {"temperature": canary("temperature"), canary("unknown"): canary("unknown_value")}
    for bad in (raw[:-1], raw.replace(b'"user"', b'"role', 1), orjson.dumps({**everything(), **wrong}), b"\xff" + raw):
        await acme.call("POST", "/responses", bad)
    word = canary("path")
    for path in (f"/responses/{word}", f"/{word}", f"/models/{word}"):
        await acme.call("GET", path)
    word = canary("query")
    for query in (f"conversations?after={word}", f"conversations?query={word}", f"responses/{response}?stream={word}"):
        await acme.call("GET", f"/{query}")
    changes = {"items": [{"type": "message", "role": "user", "content": canary("added")}]}
    await acme.call("POST", f"/conversations/{conversation}/items", changes)
    await acme.call("POST", "/responses/input_tokens", everything())
    await acme.call("POST", "/responses/compact", {"model": "500", "input": canary("compacted")})
    create = {"type": "response.create", **everything()}
    await acme.over_a_websocket(orjson.dumps(create), orjson.dumps({**create, "model": "500"}), raw, raw[:-1])
    return conversation, response


async def look_around(service: Service, beta: Tenant, conversation: str, response: str) -> None:
    """What another tenant may try; and somebody with a wrong key."""
    stranger = Tenant(service, canary("wrong_key"))
    for one in (beta, stranger):
        for path in (f"/conversations/{conversation}", f"/conversations/{conversation}/items", "/conversations"):
            await one.call("GET", path)
        for path in (f"/responses/{response}", f"/responses/{response}/input_items"):
            await one.call("GET", path)
        await one.call("POST", "/responses", {"model": "404", "input": "x", "previous_response_id": response})
        await one.call("POST", "/responses", {"input": "x", "conversation": conversation})
        await one.call("DELETE", f"/conversations/{conversation}")
    await beta.call("POST", "/conversations", {}, canary("idempotency"))
    # Beta's own provider repeats nothing but beta's words: what it tells of others would be ours.
    beta.answers += stranger.answers


def poison() -> list[bytes]:
    """Entries that PostgreSQL refuses, can't read, or has otherwise already, each with something to hide."""
    refused = broken_item(1, orjson.dumps({"text": canary("refused")}).replace(b'":"', b'":"\\u0000', 1))
    unreadable = broken_item(2, canary("unreadable").encode())
    clash = [item(3, text=canary("clash")), item(3, text=canary("clashing"))]
    return [refused, unreadable, b"1 default conv " + canary("header").encode() + b"\n{}", *clash]


async def _is_empty(redis: Redis) -> bool:
    return not await redis.llen(QUEUE)


@pytest.fixture(scope="module")
async def emitted(
    service: Service, asked: tuple[int, list[bytes]], collector: Collector, valkey: Any
) -> dict[str, bytes]:
    """All that the processes told to somebody else than the tenant whose words they are."""
    acme, beta = Tenant(service, canary("acme")), Tenant(service, canary("beta"))
    conversation, response = await talk_of_everything(acme)
    await look_around(service, beta, conversation, response)
    async with Redis(host=valkey.host, port=valkey.port) as redis:
        await push(redis, *poison())
        await wait_until(lambda: _is_empty(redis), "all to be stored", SECONDS)
    listed = [
        await worker_command(service, *command)
        for command in (("dead-letters", "list"), ("dead-letters", "list", "--json"), ("queue", "status"))
    ]
    scraped = {}
    async with aiohttp.ClientSession() as http:
        for process, url in urls(service).items():
            async with http.get(url) as answer:
                scraped[f"metrics of {process}"] = await answer.read()
    await service.close()
    statuses = {status for status, _ in acme.answers}
    assert {200, 400, 404, 409, 429, 502} <= statuses, "the ways that lead to errors do"
    assert {status for status, _ in beta.answers} >= {200, 401, 404}
    reached = b"".join(asked[1]) + b"".join(body for _, body in acme.answers)
    missed = set(canary.made) - set(canary.found_in(reached))
    assert {"text", "tool", "filename", "value", "provider_key", "answer"}.isdisjoint(missed), "they were really said"
    return {
        "api.log": Path(service.logs / "api.log").read_bytes(),
        "worker.log": Path(service.logs / "worker.log").read_bytes(),
        "commands": "".join(output + errors for _, output, errors in listed).encode(),
        "traces": b"".join(collector.bodies),
        "other tenants": b"\n".join(body for _, body in beta.answers),
        **scraped,
    }


PLACES = ("api.log", "worker.log", "commands", "traces", "other tenants", "metrics of api", "metrics of worker")


@pytest.mark.parametrize("place", PLACES)
def test_no_content_and_no_secret(emitted: dict[str, bytes], place: str) -> None:
    # An id that nobody has is in its trace like any other.
    found = set(canary.found_in(emitted[place])) - ({"path"} if place == "traces" else set())
    lines = [line[:300] for line in emitted[place].splitlines() if canary.found_in(line)]
    assert not found, (found, lines[:5])


def test_it_was_looked_where_much_is_told(emitted: dict[str, bytes]) -> None:
    assert set(emitted) == set(PLACES)
    api, worker = emitted["api.log"], emitted["worker.log"]
    assert b'"level":"DEBUG"' in api
    assert api.count(b'"message":"turn"') > 20
    assert b"entries became dead letters" in worker
    assert emitted["commands"].count(b"conv_1") > 1
    assert len(emitted["traces"]) > 10_000


CRASHES = {
    "at the top": "raise ValueError('cnry-secret')",
    "in a task that nobody waits for": """
import asyncio, gc
async def fail(): raise ValueError('cnry-secret')
async def main():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task
    gc.collect()
asyncio.run(main())""",
    "in a thread": "import threading\nthreading.Thread(target=lambda: int('cnry-secret')).start()",
    "by a warning": "import warnings\nwarnings.warn('cnry-secret ValueError')\nraise ValueError",
    "where nobody can catch it": "class A:\n    def __del__(self):\n        raise ValueError('cnry-secret')\nA()",
}


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES.keys())
def test_an_error_that_nobody_expects_is_told_without_its_text(crash: str) -> None:
    """A database's error, for one, quotes the row."""
    code = f"from core.telemetry import configure_logging\nconfigure_logging('DEBUG')\n{crash}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, timeout=SECONDS)
    assert b"ValueError" in ended.stderr
    assert b"cnry-secret" not in ended.stdout + ended.stderr
    lines = [orjson.loads(line) for line in ended.stderr.splitlines()]
    assert any("exception" in line for line in lines)
