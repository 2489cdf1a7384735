"""Bad input through the socket: a clear refusal with `param`, nothing stored, and never a 500."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from redis.asyncio import Redis
from yarl import URL

from core.queue import QUEUE
from tests.running import Service
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

LIMIT = 10 * 1024 * 1024
HELLO = {"role": "user", "content": "hello"}
RESPONSES, CONVERSATIONS = "/responses", "/conversations"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Known:
    """What was there before: one conversation with an item, one response; and one of each that was deleted."""

    conversation: str
    item: str
    response: str
    deleted_conversation: str
    deleted_item: str
    deleted_response: str


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture(scope="module")
async def known(service: Service, http: aiohttp.ClientSession) -> Known:
    async def post(path: str, body: Any) -> Any:
        async with http.post(service.url + path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def delete(path: str) -> None:
        async with http.delete(service.url + path) as answer:
            assert answer.status == 200, await answer.text()

    kept = await post(CONVERSATIONS, {})
    items = (await post(f"{CONVERSATIONS}/{kept['id']}/items", {"items": [HELLO, HELLO]}))["data"]
    response = await post(RESPONSES, {"input": "hello"})
    gone, gone_response = await post(CONVERSATIONS, {"items": [HELLO]}), await post(RESPONSES, {"input": "hello"})
    await delete(f"{CONVERSATIONS}/{gone['id']}")
    await delete(f"{CONVERSATIONS}/{kept['id']}/items/{items[1]['id']}")
    await delete(f"{RESPONSES}/{gone_response['id']}")
    return Known(kept["id"], items[0]["id"], response["id"], gone["id"], items[1]["id"], gone_response["id"])


@pytest.fixture
async def unchanged(known: Known, redis: Redis, connection: "asyncpg.Connection[Any]") -> AsyncIterator[None]:
    """Fails a test after which anything more is stored, queued, hot, running or locked than before."""
    assert known

    async def stored() -> list[Any]:
        await wait_until(lambda: _empty(redis), "an empty queue")
        tables = ("conversations", "items", "responses", "dead_letters", "tombstones")
        counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608
        keys = {key async for key in redis.scan_iter() if key.split(b":")[0] in HOT_KEYS}
        return [counts, keys, await redis.zcard("running")]

    before = await stored()
    yield
    assert await stored() == before


HOT_KEYS = {b"conv", b"items", b"resp", b"log", b"load", b"idem"}


async def _empty(redis: Redis) -> bool:
    return await redis.llen(QUEUE) == 0


async def refused(answer: aiohttp.ClientResponse, status: int, code: str, param: str | None) -> str:
    body = await answer.read()
    assert answer.status == status, body[:500]
    assert answer.content_type == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error = orjson.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    return str(error["message"])


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("path", "raw", "code", "param"),
    [
        (RESPONSES, b"", "invalid_json", None),
        (RESPONSES, b"{", "invalid_json", None),
        (RESPONSES, b"[]", "invalid_type", None),
        (RESPONSES, b'{"input": "\xff"}', "invalid_json", None),
        (RESPONSES, b"[" * 1_000_000, "invalid_json", None),
        (RESPONSES, rb'{"input": "a\u0000b"}', "invalid_value", "input"),
        (RESPONSES, rb'{"input": "x", "store": false, "instructions": "\u0000"}', "invalid_value", "instructions"),
        (RESPONSES, rb'{"input": "x", "stream": true, "metadata": {"a": "\ud800"}}', "invalid_value", "metadata.a"),
        (RESPONSES, b'{"input": 5}', "invalid_type", "input"),
        (RESPONSES, b'{"input": "x", "stream": "yes"}', "invalid_type", "stream"),
        (RESPONSES, b'{"input": "x", "temperature": 3}', "integer_above_max_value", "temperature"),
        (RESPONSES, b'{"input": "x", "background": true, "store": false}', "invalid_value", "background"),
        (RESPONSES, b'{"input": [{"type": "future", "n": 1e999}]}', "invalid_value", "input[0]"),
        (RESPONSES, b'{"input": "x", "conversation": "thr_1"}', "invalid_value", "conversation"),
        (RESPONSES, b'{"input": "x", "conversation": "conv_\xc3\xa9"}', "invalid_value", "conversation"),
        (CONVERSATIONS, b"nonsense", "invalid_json", None),
        (CONVERSATIONS, b'{"items": {}}', "invalid_type", "items"),
        (CONVERSATIONS, rb'{"items": [{"role": "user", "content": "\ud83d"}]}', "invalid_value", "items[0].content"),
        (CONVERSATIONS, orjson.dumps({"items": [HELLO] * 21}), "array_above_max_length", "items"),
        (CONVERSATIONS, orjson.dumps({"metadata": {str(number): "x" for number in range(17)}}),
         "object_above_max_properties", "metadata"),
        (CONVERSATIONS, orjson.dumps({"metadata": {"k": "v" * 513}}), "string_above_max_length", "metadata.k"),
        (f"{CONVERSATIONS}/KNOWN", b"{}", "missing_required_parameter", "metadata"),
        (f"{CONVERSATIONS}/KNOWN", rb'{"metadata": {"a\u0000": "x"}}', "invalid_value", "metadata"),
        (f"{CONVERSATIONS}/KNOWN/items", b'{"items": []}', "array_below_min_length", "items"),
        (f"{CONVERSATIONS}/KNOWN/items", orjson.dumps({"items": [HELLO] * 21}), "array_above_max_length", "items"),
    ],
)  # fmt: skip
async def test_a_bad_body(
    service: Service, http: aiohttp.ClientSession, known: Known, path: str, raw: bytes, code: str, param: str | None
) -> None:
    url = service.url + path.replace("KNOWN", known.conversation)
    async with http.post(url, data=raw, headers=JSON) as answer:
        await refused(answer, 400, code, param)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path", [RESPONSES, CONVERSATIONS, f"{CONVERSATIONS}/KNOWN", f"{CONVERSATIONS}/KNOWN/items"])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_over_the_limit(
    service: Service, http: aiohttp.ClientSession, known: Known, path: str, declared: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"input": "'
        for _ in range(LIMIT // 2**20):
            yield b"x" * 2**20
        yield b'"}'

    url = service.url + path.replace("KNOWN", known.conversation)
    async with http.post(url, data=io.BytesIO(b"x" * (LIMIT + 1)) if declared else pieces(), headers=JSON) as answer:
        assert str(LIMIT) in await refused(answer, 413, "request_too_large", None)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("key", ["\t", "k" * 256, "ké"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, {"input": "x"}),
        (RESPONSES, {"input": "x", "store": False}),
        ("/chat/completions", {"messages": [HELLO]}),
        (CONVERSATIONS, {}),
    ],
)
async def test_a_bad_idempotency_key(
    service: Service, http: aiohttp.ClientSession, path: str, body: Any, key: str
) -> None:
    headers = {"idempotency-key": f"a{key}b"}
    async with http.post(service.url + path, json=body, headers=headers) as answer:
        await refused(answer, 400, "invalid_value", "Idempotency-Key")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
@pytest.mark.parametrize("path", [RESPONSES, CONVERSATIONS])
async def test_a_body_of_another_type(service: Service, http: aiohttp.ClientSession, path: str, kind: str) -> None:
    """A page of any web site can make a browser send these without asking; JSON it can't."""
    skip = () if kind else ("content-type",)
    headers = {"content-type": kind} if kind else {}
    async with http.post(
        service.url + path, data=b'{"metadata": {}}', headers=headers, skip_auto_headers=skip
    ) as answer:
        assert "application/json" in await refused(answer, 400, "unsupported_content_type", None)


UNKNOWN = [
    "resp_0123",
    "nonsense",
    "thr_0123",
    "%00",
    "resp_%00",
    "resp_%ed%a0%80",
    "%C3%A9",
    "a" * 3000,
    "%2e%2e",
    "%27%20or%201",
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("unknown", [*UNKNOWN, "DELETED"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/input_items")])
async def test_an_unknown_response(
    service: Service, http: aiohttp.ClientSession, known: Known, method: str, path: str, unknown: str
) -> None:
    wanted = known.deleted_response if unknown == "DELETED" else unknown
    async with http.request(method, _raw(f"{service.url}{RESPONSES}/{wanted}{path}")) as answer:
        await refused(answer, 404, "response_not_found", "response_id")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("unknown", [*UNKNOWN, "DELETED"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [HELLO]}),
    ],
)
async def test_an_unknown_conversation(
    service: Service, http: aiohttp.ClientSession, known: Known, method: str, path: str, body: Any, unknown: str
) -> None:
    wanted = known.deleted_conversation if unknown == "DELETED" else unknown
    async with http.request(method, _raw(f"{service.url}{CONVERSATIONS}/{wanted}{path}"), json=body) as answer:
        await refused(answer, 404, "conversation_not_found", "conversation_id")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("unknown", [*UNKNOWN, "DELETED"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_item(
    service: Service, http: aiohttp.ClientSession, known: Known, method: str, unknown: str
) -> None:
    wanted = known.deleted_item if unknown == "DELETED" else unknown
    async with http.request(
        method, _raw(f"{service.url}{CONVERSATIONS}/{known.conversation}/items/{wanted}")
    ) as answer:
        await refused(answer, 404, "item_not_found", "item_id")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
@pytest.mark.parametrize(
    ("field", "wanted", "code"),
    [
        ("conversation", "conv_0123", "conversation_not_found"),
        ("conversation", "DELETED", "conversation_not_found"),
        ("previous_response_id", "resp_0123", "response_not_found"),
        ("previous_response_id", "DELETED", "response_not_found"),
    ],
)
async def test_a_turn_on_something_unknown(
    service: Service, http: aiohttp.ClientSession, known: Known,
    field: str, wanted: str, code: str, store: bool, stream: bool,
) -> None:  # fmt: skip
    deleted = known.deleted_conversation if field == "conversation" else known.deleted_response
    body = {"input": "x", field: wanted.replace("DELETED", deleted), "store": store, "stream": stream}
    async with http.post(service.url + RESPONSES, json=body) as answer:
        await refused(answer, 404, code, field)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1e9", "limit"),
        ("limit=%00", "limit"),
        ("order=up", "order"),
        ("after=%00", "after"),
        ("after=msg_0123", "after"),
        ("after=" + "a" * 5000, "after"),
    ],
)
@pytest.mark.parametrize("path", [f"{CONVERSATIONS}/KNOWN/items", f"{RESPONSES}/ANSWER/input_items"])
async def test_a_bad_list_query(
    service: Service, http: aiohttp.ClientSession, known: Known, path: str, query: str, param: str
) -> None:
    where = path.replace("KNOWN", known.conversation).replace("ANSWER", known.response)
    async with http.get(_raw(f"{service.url}{where}?{query}")) as answer:
        await refused(answer, 400, "invalid_value", param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=maybe", "stream"),
        ("stream=true&starting_after=-2", "starting_after"),
        ("starting_after=x", "starting_after"),
    ],
)
@pytest.mark.parametrize("response", ["ANSWER", "resp_unknown"])
async def test_a_bad_resume_query(
    service: Service, http: aiohttp.ClientSession, known: Known, response: str, query: str, param: str
) -> None:
    """It is refused before anybody looks for the response."""
    where = f"{RESPONSES}/{response.replace('ANSWER', known.response)}"
    async with http.get(f"{service.url}{where}?{query}") as answer:
        await refused(answer, 400, "invalid_value", param)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nothing", 404, "unknown_url", None),
        ("GET", f"{CONVERSATIONS}/", 404, "unknown_url", None),
        ("PUT", CONVERSATIONS, 405, "method_not_allowed", "GET, POST"),
        ("PATCH", RESPONSES, 405, "method_not_allowed", "POST"),
        ("POST", "/models", 405, "method_not_allowed", "GET"),
        ("PUT", f"{CONVERSATIONS}/conv_1", 405, "method_not_allowed", "GET, POST, DELETE"),
    ],
)
async def test_an_unknown_endpoint(
    service: Service, http: aiohttp.ClientSession, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    async with http.request(method, service.url + path) as answer:
        await refused(answer, status, code, None)
        assert answer.headers.get("allow") == allow


def _raw(url: str) -> URL:
    return URL(url, encoded=True)
