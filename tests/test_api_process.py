"""The API's process: what it refuses to start with, whom it lets in, how it stops."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from openai import AsyncOpenAI, AuthenticationError
from redis.asyncio import Redis

from local.parts import ROOT
from tests.conftest import StartService
from tests.running import Part, Service
from tests.talking import DONE, Json, asked, drained, events_of, forget_hot, release, talk, text_of
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

KEY = "a secret of this test"
BEGINNING = "word1 word2 word3 "


@pytest.fixture(scope="module")
async def locked_service(start_service: StartService) -> Service:
    """One that asks for a key; hot copies end after a second (every worker of this module has the same setting)."""
    return await start_service(AUTH="", API_KEY=KEY, MODEL="echo", EXPIRATION_TIME="1")


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def draining(start_service: StartService, upstream: Part, seconds: str) -> Service:
    url = f"http://{upstream.host}:{upstream.port}/v1"
    return await start_service(worker=False, OPENAI_BASE_URL=url, MODEL="fake", DRAIN_SECONDS=seconds)


def refused_start(**settings: str) -> str:
    """What a start that must fail says."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONWARNINGS": "error", **settings}
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_all_wrong_settings_are_told_at_once() -> None:
    said = refused_start(
        PORT="high", METRICS_PORT="0", REDIS_PORT="70000", REDIS_TLS="yes", PG_PORT="x", EXPIRATION_TIME="-1",
        QUEUE_LIMIT="0", BODY_LIMIT_BYTES="1", DRAIN_SECONDS="soon", LOG_LEVEL="LOUD", OPENAI_BASE_URL="localhost",
        PG_DATABASE_FILE="/nowhere",
    )  # fmt: skip
    [head, *lines] = said.splitlines()
    assert head == "settings are wrong:"
    assert {line.split()[0].partition("=")[0] for line in lines} == {
        "API_KEY", "PORT", "METRICS_PORT", "REDIS_PORT", "REDIS_TLS", "PG_PORT", "EXPIRATION_TIME", "QUEUE_LIMIT",
        "BODY_LIMIT_BYTES", "DRAIN_SECONDS", "LOG_LEVEL", "OPENAI_BASE_URL", "PG_DATABASE_FILE",
    }  # fmt: skip
    assert len(lines) == 13


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "API_KEY is missing: set the key that all must send, KEYS_FILE for several, or AUTH=none to ask for none"),
        ({"AUTH": "none", "API_KEY": "secret"}, "API_KEY and AUTH=none are set together: set one of them"),
        ({"AUTH": "off", "API_KEY": "secret"}, "AUTH='off' must be one of key, none"),
    ],
)
def test_who_may_come_in_must_be_said(settings: dict[str, str], told: str) -> None:
    said = refused_start(**settings)
    assert said == f"settings are wrong:\n  {told}\n"
    assert "secret" not in said


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", KEY])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/responses"), ("GET", "/responses/resp_1"), ("DELETE", "/responses/resp_1"), ("GET", "/models"),
        ("POST", "/conversations"), ("GET", "/conversations/conv_1/items"), ("GET", "/nothing"), ("PUT", "/responses"),
    ],
)  # fmt: skip
async def test_without_the_key_nothing_opens(
    locked_service: Service, http: aiohttp.ClientSession, redis: Redis, method: str, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"Authorization": given}
    async with http.request(method, locked_service.url + path, headers=headers, json={"input": "x"}) as answer:
        body = await answer.json()
        assert (answer.status, body["error"]["code"]) == (401, "invalid_api_key")
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in str(body)
    assert not [key async for key in redis.scan_iter("resp:*")]


async def test_with_the_key(locked_service: Service, redis: Redis) -> None:
    """And hot copies end EXPIRATION_TIME after the worker has stored them; then PostgreSQL answers."""
    async with talk(locked_service, KEY) as client:
        conversation = await client.conversations.create()
        response = await client.responses.create(input="short-lived", conversation=conversation.id)
        names = [f"{kind}:default:{conversation.id}" for kind in ("conv", "items")] + [f"resp:default:{response.id}"]

        async def gone() -> bool:
            return await redis.exists(*names) == 0

        await wait_until(gone, "the end of the hot copies")
        assert await client.responses.retrieve(response.id) == response
        assert await client.conversations.retrieve(conversation.id) == conversation
        again = await client.responses.create(input="again", conversation=conversation.id)
        assert again.output_text == "again"
    async with talk(locked_service, "wrong") as client:
        with pytest.raises(AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_ask_for_no_key(locked_service: Service, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(locked_service.url.removesuffix("/v1") + path) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "ok")
        assert answer.headers["x-request-id"]


async def start_turn(service: Service, http: aiohttp.ClientSession, body: Json) -> "asyncio.Task[bytes]":
    async def answer() -> bytes:
        async with http.post(f"{service.url}/responses", json=body) as received:
            assert received.status == 200
            return await received.read()

    return asyncio.create_task(answer())


async def both_asked(upstream: Part, text: str, count: int) -> None:
    async def reached() -> bool:
        return len(await asked(upstream, text)) == count

    await wait_until(reached, "the upstream is asked")


async def test_a_stop_in_the_middle_of_answers(
    start_service: StartService, upstream: Part, http: aiohttp.ClientSession, redis: Redis,
    locked_service: Service, connection: "asyncpg.Connection[Any]",
) -> None:  # fmt: skip
    """SIGTERM: at the end of the drain every turn is closed with what it has, told to its client and kept."""
    service = await draining(start_service, upstream, "0.3")
    async with talk(service) as client:
        conversations = [(await client.conversations.create()).id for _ in range(3)]
    bodies: list[Json] = [
        {"model": "fake-hang-middle", "stream": True},
        {"model": "fake-hang", "stream": True},
        {"model": "fake-hang"},
    ]
    turns = [
        await start_turn(service, http, {**body, "input": "cut short", "conversation": conversation})
        for body, conversation in zip(bodies, conversations, strict=True)
    ]
    await both_asked(upstream, "cut short", 3)
    assert await service.api.terminate() == 0
    raw = [await turn for turn in turns]
    assert raw[0].endswith(DONE)
    ends: list[Any] = [events_of(raw[0])[-1], events_of(raw[1])[-1]]
    assert [end["type"] for end in ends] == ["response.incomplete"] * 2
    finals = [end["response"] for end in ends] + [orjson.loads(raw[2])]
    for final in finals:
        assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": "interrupted"})
    assert [len(final["output"]) for final in finals] == [1, 0, 0]
    assert finals[0]["output"][0]["content"][0]["text"] == BEGINNING
    assert await redis.zcard("running") == 0
    await forget_hot(redis)

    await service.api.start()
    async with talk(service) as client:
        for final, conversation in zip(finals, conversations, strict=True):
            assert (await client.responses.with_raw_response.retrieve(final["id"])).http_response.json() == final
            said = [text_of(item) async for item in client.conversations.items.list(conversation, order="asc")]
            assert said == (["cut short", BEGINNING] if final["output"] else [])
            again = await client.responses.create(model="fake-bench-1", input="on", conversation=conversation)
            assert again.output_text == "word1"
    assert locked_service.worker.child.running
    await drained(redis)
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_stop_ends_unstored_answers_too(
    start_service: StartService, upstream: Part, http: aiohttp.ClientSession, streamed: bool
) -> None:
    """Nothing of them is kept, so nothing but the process itself knows that they run."""
    service = await draining(start_service, upstream, "0.3")
    text = f"not kept {streamed}"
    body = {"model": "fake-hang-middle", "input": text, "store": False, "stream": streamed}
    turn = await start_turn(service, http, body)
    await both_asked(upstream, text, 1)
    assert await service.api.terminate() == 0
    raw = await turn
    final = events_of(raw)[-1]["response"] if streamed else orjson.loads(raw)
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": "interrupted"})


async def test_a_stop_lets_answers_end(
    start_service: StartService, upstream: Part, http: aiohttp.ClientSession, redis: Redis, locked_service: Service
) -> None:
    """Within the drain they end as if nothing were; nobody new comes in, and a turn whose client left is waited for."""
    service = await draining(start_service, upstream, "20")
    streamed = await start_turn(service, http, {"model": "fake-hold-drain", "input": "drained", "stream": True})
    whole = await start_turn(service, http, {"model": "fake-hold-drain", "input": "drained"})
    async with talk(service) as client:
        conversation = (await client.conversations.create()).id
    left = {"model": "fake-hold-drain", "input": "drained", "conversation": conversation}
    deserted = await start_turn(service, http, left)
    await both_asked(upstream, "drained", 3)
    deserted.cancel()
    await asyncio.wait([deserted])
    stopping = asyncio.create_task(service.api.terminate())

    async def closed() -> bool:
        try:
            await http.get(f"{service.url}/models")
        except aiohttp.ClientConnectionError:
            return True
        return False

    await wait_until(closed, "nobody new comes in")
    assert not stopping.done()
    await release(upstream, "drain")
    assert events_of(await streamed)[-1]["type"] == "response.completed"
    assert b'"status":"completed"' in await whole
    assert await stopping == 0
    await service.api.start()
    async with talk(service) as client:
        assert len((await client.conversations.items.list(conversation)).data) == 2
    assert await redis.zcard("running") == 0
    assert locked_service.worker.child.running


async def test_a_client_hears_its_request_id(locked_service: Service) -> None:
    """The SDK shows it, so it can be found in the log."""
    async with AsyncOpenAI(base_url=locked_service.url, api_key=KEY, max_retries=0) as client:
        first, second = [await client.responses.create(input="x") for _ in range(2)]
    assert first._request_id  # noqa: SLF001 - the SDK's documented name
    assert first._request_id != second._request_id  # noqa: SLF001 - as above
