"""Every kind of answer against the Open Responses specification, read from the socket and not through an SDK."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from tests.contract import validate_item, validate_response, validate_stream
from tests.documented import check_documented
from tests.fake_scripts import SCRIPTS
from tests.running import Service
from tests.talking import Json, check_answer, events_of, forget_hot

pytestmark = pytest.mark.anyio

TOOL: Json = {
    "type": "function", "name": "weather", "description": None, "parameters": {"type": "object"}, "strict": True,
}  # fmt: skip
CHOICE = {"type": "function", "name": "weather"}
MESSAGE = {"role": "user", "content": "hello"}
FORMAT = {"type": "json_schema", "name": "city", "schema": {"type": "object"}}

BODIES: dict[str, Json] = {
    "plain": {"input": "hello"},
    "everything": {
        "input": [MESSAGE], "instructions": "Be brief", "metadata": {"a": "b"}, "temperature": 0, "top_p": 0.5,
        "presence_penalty": -1, "frequency_penalty": 1.5, "max_output_tokens": 16, "max_tool_calls": 1,
        "parallel_tool_calls": False, "tools": [TOOL], "tool_choice": "auto", "truncation": "disabled",
        "text": {"verbosity": "low"}, "reasoning": {"effort": "low", "summary": "auto"}, "top_logprobs": 0,
        "service_tier": "auto", "safety_identifier": "someone", "prompt_cache_key": "key", "user": "someone",
        "include": ["reasoning.encrypted_content"], "stream_options": {"include_obfuscation": False},
    },
    "nulls": {
        "input": "hello", "instructions": None, "metadata": None, "temperature": None, "top_p": None, "tools": None,
        "tool_choice": None, "text": None, "reasoning": None, "max_output_tokens": None, "truncation": None,
        "parallel_tool_calls": None, "previous_response_id": None, "conversation": None, "store": None,
        "service_tier": None, "safety_identifier": None, "presence_penalty": None, "background": None,
    },
    "every item": {
        "input": [
            {"role": "system", "content": "Be brief"},
            {"role": "developer", "content": [{"type": "input_text", "text": "Be kind"}]},
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]},
            {"role": "user", "content": [{"type": "input_file", "filename": "a.txt", "file_data": "data:,a"}]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "status": "incomplete"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "yes", "annotations": []}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": "x"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "done"}]},
            MESSAGE,
        ],
    },
    "tool": {"model": "fake-tool", "input": "hello", "tools": [TOOL], "tool_choice": "required"},
    "chosen tool": {"model": "fake-tool", "input": "hello", "tools": [TOOL], "tool_choice": CHOICE},
    "allowed tool": {
        "model": "fake-tool", "input": "hello", "tools": [TOOL],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [CHOICE]},
    },
    "schema": {"input": "hello", "text": {"format": FORMAT}},
    "object": {"input": "hello", "text": {"format": {"type": "json_object"}}},
    "text": {"input": "hello", "text": {"format": {"type": "text"}, "verbosity": "high"}},
    "failed": {"model": "fake-500", "input": "hello"},
    "cut": {"model": "fake-cut", "input": "hello"},
    "reset": {"model": "fake-reset", "input": "hello"},
}  # fmt: skip

CASES = [(name, place) for name in BODIES for place in ("thread", "conversation", "unstored")]
BODIES |= {script: {"model": f"fake-{script}", "input": "hello"} for script in SCRIPTS}
CASES += [(script, "conversation") for script in SCRIPTS]


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def call(http: aiohttp.ClientSession, method: str, url: str, body: Json | None = None) -> tuple[int, bytes]:
    async with http.request(method, url, json=body) as answer:
        raw = await answer.read()
        check_answer(answer.status, answer.headers, raw, answer.url.query)
        check_documented(method, answer.url.path, answer.status, answer.headers, raw)
        return answer.status, raw


async def get(http: aiohttp.ClientSession, url: str) -> Any:
    status, raw = await call(http, "GET", url)
    assert status == 200, raw
    return orjson.loads(raw)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("name", "place"), CASES)
async def test_responses(
    asking_service: Service, http: aiohttp.ClientSession, name: str, stream: bool, place: str
) -> None:
    body = {"model": "fake", **BODIES[name], "stream": stream, "store": place != "unstored"}
    url = asking_service.url
    if place == "conversation":
        _, raw = await call(http, "POST", f"{url}/conversations", {})
        body["conversation"] = orjson.loads(raw)["id"]
    status, raw = await call(http, "POST", f"{url}/responses", body)
    if status != 200:
        assert not stream
        return
    final: Any = validate_stream(events_of(raw)) if stream else orjson.loads(raw)
    validate_response(final)
    assert final["store"] is (place != "unstored")
    assert final["conversation"] == ({"id": body["conversation"]} if place == "conversation" else None)
    whole = final["status"] == "completed"
    assert (final["completed_at"] is not None) is whole
    assert final["usage"] is not None or not whole
    if place != "unstored":
        await check_what_is_kept(http, url, final)


async def check_what_is_kept(http: aiohttp.ClientSession, url: str, final: Json) -> None:
    assert await get(http, f"{url}/responses/{final['id']}") == final
    inputs = (await get(http, f"{url}/responses/{final['id']}/input_items?order=asc"))["data"]
    for item in (*inputs, *final["output"]):
        validate_item(item)
    if final["conversation"] is not None:
        listed = await get(http, f"{url}/conversations/{final['conversation']['id']}/items?order=asc&limit=100")
        assert listed["data"] == (inputs + final["output"] if final["output"] else [])


@pytest.mark.parametrize("name", ["plain", "everything", "every item", "tool", "vllm", "refusal", "cut", "failed"])
async def test_what_postgresql_tells(
    asking_service: Service, http: aiohttp.ClientSession, redis: Redis, name: str
) -> None:
    url = asking_service.url
    body = {"model": "fake", **BODIES[name], "stream": True}
    _, raw = await call(http, "POST", f"{url}/responses", body)
    final: Any = events_of(raw)[-1]["response"]
    inputs = await get(http, f"{url}/responses/{final['id']}/input_items?limit=100")
    await forget_hot(redis)
    cold = await get(http, f"{url}/responses/{final['id']}")
    validate_response(cold)
    assert cold == final
    assert await get(http, f"{url}/responses/{final['id']}/input_items?limit=100") == inputs
    for item in inputs["data"]:
        validate_item(item)


@pytest.mark.parametrize("path", ["/responses/resp_1", "/conversations/conv_1", "/models/none", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_errors_have_one_shape(
    asking_service: Service, http: aiohttp.ClientSession, method: str, path: str
) -> None:
    """`check_answer` looks at it."""
    status, _ = await call(http, method, asking_service.url + path, {"metadata": {}})
    assert status in (404, 405)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_error_before_a_stream_is_plain_http(
    asking_service: Service, http: aiohttp.ClientSession, stream: bool
) -> None:
    wrong: list[tuple[int, Json]] = [
        (400, {"input": 5}),
        (400, {}),
        (404, {"input": "x", "conversation": "conv_1"}),
        (404, {"input": "x", "previous_response_id": "resp_1"}),
    ]
    for wanted, body in wrong:
        status, _ = await call(http, "POST", f"{asking_service.url}/responses", {**body, "stream": stream})
        assert status == wanted
