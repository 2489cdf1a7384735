"""Requests and tokens per minute: counted for a tenant by all processes together, told to clients, refused in time."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from openai import ConflictError, RateLimitError
from redis.asyncio import Redis

from api.rates import Allowance, Limits, duration
from tests.conftest import StartService
from tests.hot_turns import begun, ending, finish, opening, running_lanes
from tests.ownership import at_rest
from tests.running import Part, Service
from tests.talking import Json, asked, drained, talk
from tests.test_tenants import block
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# Each is some test's own, since what it has used comes back slowly.
LIMITS = {
    "two": "requests_per_minute = 2",
    "streaming": "requests_per_minute = 2",
    "unstored": "requests_per_minute = 2\ntokens_per_minute = 100_000",
    "compacting": "requests_per_minute = 1\ntokens_per_minute = 100_000",
    "older": "requests_per_minute = 2",
    "repeating": "requests_per_minute = 10",
    "counted": "tokens_per_minute = 100_000",
    "cut": "tokens_per_minute = 100_000",
    "little": "tokens_per_minute = 20",
    "away": "requests_per_minute = 1",
}


@pytest.fixture(scope="module")
async def limited(start_service: StartService, upstream: Part, folder: Path) -> Service:
    keys = folder / "limited.toml"
    tenants = [f"[tenants.{tenant}]\n{limits}\n" for tenant, limits in LIMITS.items()]
    keys.write_text("\n".join([*(block(tenant, f"{tenant}-key") for tenant in (*LIMITS, "free")), *tenants]))
    url = f"http://{upstream.host}:{upstream.port}/v1"
    return await start_service(AUTH="", KEYS_FILE=str(keys), OPENAI_BASE_URL=url, MODEL="fake")


@pytest.fixture(scope="module")
async def other_pod(start_service: StartService, limited: Service) -> Service:
    settings = {name: limited.environment[name] for name in ("KEYS_FILE", "OPENAI_BASE_URL", "MODEL")}
    return await start_service(AUTH="", worker=False, **settings)


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def post(
    http: aiohttp.ClientSession, service: Service, tenant: str, path: str = "/responses", **body: Any
) -> tuple[int, "dict[str, str]", bytes]:
    """Status, the headers about limits, body."""
    headers = {"Authorization": f"Bearer {tenant}-key"}
    async with http.post(service.url + path, json=body, headers=headers) as answer:
        named = {name.lower(): value for name, value in answer.headers.items()}
        told = {name: value for name, value in named.items() if name.startswith(("x-ratelimit", "retry-after"))}
        return answer.status, told, await answer.read()


def usage_of(body: bytes) -> int:
    return int(orjson.loads(body)["usage"]["total_tokens"])


async def left(redis: Redis, tenant: str, kind: str) -> float:
    """What a bucket held when something was last taken from it."""
    return float(await redis.hget(f"rate:{tenant}", kind) or "nan")


async def test_requests_of_all_processes_count_together(
    limited: Service, other_pod: Service, upstream: Part, redis: Redis
) -> None:
    async with talk(limited, "two-key") as client, talk(other_pod, "two-key") as other:
        first = await client.responses.with_raw_response.create(input="one of two")
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] in ("30s", "29.999s", "29.998s", "29.997s")
        assert "x-ratelimit-limit-tokens" not in first.headers
        conversation = (await other.conversations.create()).id
        await other.responses.create(input="two of two", conversation=conversation)
        before = [key async for key in redis.scan_iter("*:two:*")]
        with pytest.raises(RateLimitError) as refused:
            await client.responses.create(input="three of two", conversation=conversation)
        error, headers = refused.value, refused.value.response.headers
        assert (error.code, error.type, error.param) == ("rate_limit_exceeded", "requests", None)
        assert 1 <= int(headers["retry-after"]) <= 30
        assert int(headers["retry-after"]) * 1000 - 999 <= int(headers["retry-after-ms"]) <= 30_000
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert await asked(upstream, "three of two") == []
        await drained(redis)
        assert set(before) == {key async for key in redis.scan_iter("*:two:*")}
        # Reading is free, and so is whoever has no limits.
        assert len((await client.conversations.items.list(conversation)).data) == 2
        async with talk(limited, "free-key") as free:
            raw = await free.responses.with_raw_response.create(input="free")
            assert not [name for name in raw.headers if name.startswith("x-ratelimit")]
        assert await redis.exists("rate:free") == 0
        # Half a minute later.
        await redis.hincrby("rate:two", "at", -30_000)
        await client.responses.create(input="four", conversation=conversation)
    await at_rest(redis)


async def test_a_stream_is_told_too(limited: Service, http: aiohttp.ClientSession) -> None:
    body: Json = {"input": "streamed", "stream": True}
    for remaining in ("1", "0"):
        status, told, _ = await post(http, limited, "streaming", **body)
        assert (status, told["x-ratelimit-remaining-requests"]) == (200, remaining)
    assert (await post(http, limited, "streaming", **body))[0] == 429


async def test_what_is_not_stored_counts(
    limited: Service, http: aiohttp.ClientSession, upstream: Part, redis: Redis
) -> None:
    used = 0
    for remaining in ("1", "0"):
        status, told, body = await post(http, limited, "unstored", input="not kept", store=False)
        assert (status, told["x-ratelimit-remaining-requests"]) == (200, remaining)
        used += usage_of(body)
    status, told, body = await post(http, limited, "unstored", input="not asked", store=False)
    assert (status, b'"type":"requests"' in body) == (429, True)
    assert await asked(upstream, "not asked") == []

    async def settled() -> bool:
        # What came back meanwhile came back up to the full bucket.
        return 100_000 - used <= await left(redis, "unstored", "tokens") < 100_000

    await wait_until(settled, "the tokens are settled")


async def test_a_compaction_counts(limited: Service, http: aiohttp.ClientSession, redis: Redis) -> None:
    status, told, body = await post(http, limited, "compacting", "/responses/compact", input="short")
    assert (status, told["x-ratelimit-remaining-requests"]) == (200, "0")
    assert await left(redis, "compacting", "tokens") == 100_000 - usage_of(body)
    assert (await post(http, limited, "compacting", "/responses/compact", input="short"))[0] == 429


async def test_chat_completions_count(limited: Service, http: aiohttp.ClientSession) -> None:
    messages: list[Json] = [{"role": "user", "content": "older"}]
    for store in (True, False):
        status, told, _ = await post(
            http, limited, "older", "/chat/completions", model="fake", messages=messages, store=store
        )
        assert (status, "x-ratelimit-remaining-requests" in told) == (200, True)
    status, told, body = await post(http, limited, "older", "/chat/completions", model="fake", messages=messages)
    assert (status, "retry-after" in told, b"rate_limit_exceeded" in body) == (429, True, True)


async def test_only_what_is_begun_counts(limited: Service, redis: Redis) -> None:
    """Neither a repetition, nor what is refused for another reason."""
    async with talk(limited, "repeating-key") as client:
        headers = {"Idempotency-Key": "the same"}
        first = await client.responses.create(input="once", extra_headers=headers)
        counted = await left(redis, "repeating", "requests")
        assert await client.responses.create(input="once", extra_headers=headers) == first
        with pytest.raises(ConflictError):
            await client.responses.create(input="twice", extra_headers=headers)
        await client.conversations.create()
    assert await left(redis, "repeating", "requests") == counted == 9


async def test_tokens_are_those_that_were_used(limited: Service, http: aiohttp.ClientSession, redis: Redis) -> None:
    status, told, body = await post(http, limited, "counted", input="a question of some length")
    assert (status, told["x-ratelimit-limit-tokens"]) == (200, "100000")
    assert int(told["x-ratelimit-remaining-tokens"]) == 100_000 - 7, "the input, as it was estimated"
    assert await left(redis, "counted", "tokens") == 100_000 - usage_of(body)
    assert not await redis.hexists(f"resp:counted:{orjson.loads(body)['id']}", "taken")


async def test_a_cut_answer_is_paid_for(limited: Service, redis: Redis) -> None:
    """The provider had no chance to tell its usage."""
    async with talk(limited, "cut-key") as client:
        events = await client.responses.create(model="fake-hang-middle", input="stop this", stream=True)
        async for event in events:
            if event.type == "response.created":
                response = event.response.id
            if event.type == "response.output_text.delta":
                break
        await client.responses.cancel(response)
    # 9 letters of the question, and at least the first of "word1 word2 word3 ".
    assert 2 <= 100_000 - await left(redis, "cut", "tokens") - 3 <= 5


async def test_any_number_of_tokens_ends_a_turn(limited: Service, redis: Redis) -> None:  # noqa: ARG001 - it has an epoch
    """Whatever its provider tells."""
    one = replace(opening(), allowance=Allowance(Limits(10, 100)), tokens=5)
    async with running_lanes(redis) as lanes:
        thread = (await begun(lanes, one)).thread
        end = replace(ending(one.response, "question", "answer"), tokens=2**63)
        assert await finish(lanes, one, thread, end) == "ok"


async def test_an_answer_longer_than_the_minute_is_owed(limited: Service, http: aiohttp.ClientSession) -> None:
    """It is not cut short; the next question waits until it is paid for, however small it is."""
    status, _, body = await post(http, limited, "little", input="x")
    assert (status, usage_of(body) > 20) == (200, True)
    status, told, body = await post(http, limited, "little", input="y")
    assert (status, b'"type":"tokens"' in body) == (429, True)
    assert told["x-ratelimit-remaining-tokens"] == "0"
    assert "x-ratelimit-remaining-requests" not in told


async def test_without_redis_nothing_counts(
    limited: Service, other_pod: Service, http: aiohttp.ClientSession, valkey: Part
) -> None:
    """What needs no store goes on; the last test here, for it kills Redis."""
    assert other_pod.api.child.running
    assert (await post(http, limited, "away", input="once", store=False))[0] == 200
    assert (await post(http, limited, "away", input="twice", store=False))[0] == 429
    await valkey.kill()
    status, told, _ = await post(http, limited, "away", input="twice", store=False)
    assert (status, told) == (200, {})
    await valkey.start()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0ms"), (-1, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (59.999, "59.999s"),
        (60, "1m0s"), (360, "6m0s"), (3725.5, "62m5s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_openai_writes_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
