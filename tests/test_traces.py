"""Traces as a collector receives them: real processes, OTLP on a real socket."""

import re
import secrets
from collections.abc import AsyncIterator
from typing import cast

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from core.places import read_traceparent
from core.queue import QUEUE
from local.children import free_port
from local.traces import Span
from tests.conftest import StartService
from tests.entries import item
from tests.fake_collector import Collector, collecting
from tests.running import Part, Service
from tests.talking import Json, asked, drained, release
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

SOON = "50"  # OTEL_BSP_SCHEDULE_DELAY in milliseconds


@pytest.fixture(scope="module")
async def collector(anyio_backend: str) -> AsyncIterator[Collector]:  # noqa: ARG001 - one event loop for all
    async with collecting(free_port()) as running:
        yield running


@pytest.fixture(scope="module")
async def traced(collector: Collector, start_service: StartService, upstream: Part) -> Service:
    return await start_service(
        OPENAI_BASE_URL=f"http://{upstream.host}:{upstream.port}/v1",
        MODEL="fake",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=sesame",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        OTEL_BSP_SCHEDULE_DELAY=SOON,
    )


class Client:
    """A client that is traced itself: `trace` and `span` name its own span."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.traceparent = f"00-{self.trace}-{self.span}-{'01' if sampled else '00'}"

    async def send(self, method: str, url: str, body: Json | None = None, status: int = 200) -> bytes:
        headers = {"traceparent": self.traceparent}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, url, json=body) as response,
        ):
            answer = await response.read()
            assert response.status == status, answer
            return answer

    async def ask(self, service: Service, **body: object) -> Json:
        answer: Json = orjson.loads(await self.send("POST", f"{service.url}/responses", body))
        return answer


def children(collector: Collector, parent: Span) -> list[str]:
    return [span.name for span in collector.of(parent.trace) if span.parent == parent.id]


async def batch_of(collector: Collector, trace: str) -> tuple[Span, Span]:
    """The worker's span in a trace, and that of the batch that it leads to."""
    store = await collector.one(f"store {QUEUE}", trace)
    [(trace, batch)] = store.links
    await wait_until(lambda: any(span.id == batch for span in collector.spans), "the batch's span")
    return store, next(span for span in collector.spans if span.id == batch)


async def test_one_trace_from_the_client_to_the_copy(traced: Service, upstream: Part, collector: Collector) -> None:
    client, words = Client(), secrets.token_hex(8)
    body = {"input": words, "model": "fake-slow-10ms", "stream": True, "temperature": 0.5}
    streamed = (await client.send("POST", f"{traced.url}/responses", body)).decode()
    response = re.findall(r'"id":"(resp_\w+)"', streamed)[0]
    store, batch = await batch_of(collector, client.trace)

    server = await collector.one("POST /v1/responses", client.trace)
    assert (server.parent, server.kind, server.service) == (client.span, "server", "chatbot-api")
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["chatbot.tenant"] == "default"
    assert children(collector, server) == ["EVALSHA begin", "turn"]
    [turn] = collector.named("turn", client.trace)
    assert turn.attributes["chatbot.response.id"] == response
    assert turn.attributes["chatbot.response.status"] == "completed"
    assert set(children(collector, turn)) == {
        "chat fake-slow-10ms",
        "EVALSHA flush",
        "EVALSHA finish",
        f"store {QUEUE}",
    }
    [finish] = collector.named("EVALSHA finish", client.trace)
    assert finish.kind == "client"
    assert finish.attributes["db.system.name"] == "redis"
    assert finish.attributes["db.stored_procedure.name"] == "finish"
    assert not any(span.failed for span in collector.of(client.trace))

    [chat] = collector.named("chat fake-slow-10ms", client.trace)
    assert chat.kind == "client"
    told = {name: value for name, value in chat.attributes.items() if name != "gen_ai.response.time_to_first_chunk"}
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "upstream",
        "gen_ai.request.model": "fake-slow-10ms",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "fake",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 32,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1,
    }
    [call] = [span for span in collector.of(client.trace) if span.parent == chat.id]
    [question] = await asked(upstream, words)
    assert question["headers"]["traceparent"] == f"00-{client.trace}-{call.id}-01"
    assert call.attributes["http.response.status_code"] == 200

    assert (store.service, store.kind, store.parent) == ("chatbot-worker", "consumer", turn.id)
    assert (batch.service, batch.kind, batch.parent) == ("chatbot-worker", "consumer", "")
    assert (client.trace, turn.id) in batch.links
    assert batch.attributes["messaging.batch.message_count"] == 3
    work = children(collector, batch)
    assert work[0] == "EVALSHA claim"
    assert work[-4:] == ["COPY responses", "INSERT queue_epochs", "COMMIT", "EVALSHA ack"]
    [copy] = collector.named("COPY items", batch.trace)
    told = {"db.system.name": "postgresql", "db.operation.name": "COPY", "db.collection.name": "items"}
    assert told.items() <= copy.attributes.items()
    [commit] = collector.named("COMMIT", batch.trace)
    [ack] = collector.named("EVALSHA ack", batch.trace)
    assert finish.start < copy.start < copy.end <= commit.start < commit.end <= store.end
    assert batch.start == store.start
    assert copy.end < store.end <= ack.start <= batch.end

    assert collector.headers[-1]["x-collector-key"] == "sesame"
    assert collector.resources["chatbot-api"]["deployment.environment.name"] == "test"


async def test_other_ways_into_the_queue(traced: Service, collector: Collector) -> None:
    """What a client changes without a turn, or with one that it does not wait for."""
    created = Client()
    conversation = orjson.loads(await created.send("POST", f"{traced.url}/conversations", {}))["id"]
    assert (await batch_of(collector, created.trace))[0].attributes["messaging.destination.name"] == QUEUE
    url = f"{traced.url}/conversations/{conversation}"
    added, filled = Client(), Client()
    message = {"type": "message", "role": "user", "content": "hello"}
    items = orjson.loads(await added.send("POST", f"{url}/items", {"items": [message, message]}))
    await batch_of(collector, added.trace)
    assert len(collector.named(f"store {QUEUE}", added.trace)) == 1
    server = await collector.one("POST /v1/conversations/{conversation_id}/items", added.trace)
    assert "EVALSHA append" in children(collector, server)
    await filled.send("POST", f"{traced.url}/conversations", {"items": [message], "metadata": {"a": "b"}})
    await batch_of(collector, filled.trace)
    background = Client()
    response = (await background.ask(traced, input="hello", background=True))["id"]
    await batch_of(collector, background.trace)
    turn = await collector.one("turn", background.trace)
    server = await collector.one("POST /v1/responses", background.trace)
    assert turn.parent == server.id
    assert turn.end > server.end
    for path in (f"conversations/{conversation}/items/{items['first_id']}", f"responses/{response}", url):
        deleting = Client()
        await deleting.send("DELETE", path if path == url else f"{traced.url}/{path}")
        _, batch = await batch_of(collector, deleting.trace)
        assert any(name.startswith("DELETE ") for name in children(collector, batch))


async def test_each_turn_of_a_websocket(traced: Service, collector: Collector) -> None:
    client = Client()
    url = f"{traced.url.replace('http', 'ws')}/responses"
    async with connect(url, additional_headers={"traceparent": client.traceparent}) as socket:
        for _ in range(2):
            await socket.send(orjson.dumps({"type": "response.create", "input": "hello"}).decode())
            while orjson.loads(await socket.recv())["type"] != "response.completed":
                pass
    stored = f"store {QUEUE}"
    await wait_until(lambda: len(collector.named(stored, client.trace)) == 2, "both turns to be stored")
    await wait_until(lambda: len(collector.named("response.create", client.trace)) == 2, "both turns' spans")
    for span in collector.named("response.create", client.trace):
        assert (span.parent, span.kind, span.attributes["chatbot.tenant"]) == (client.span, "server", "default")
        assert children(collector, span) == ["EVALSHA begin", "turn"]


async def marked(redis: Redis) -> list[bool]:
    """Which of the queue's entries have a trace."""
    entries = cast("list[bytes]", await redis.lrange(QUEUE, 0, -1))
    return [b" trace:" in entry.partition(b"\n")[0] for entry in entries]


async def test_what_its_client_does_not_sample(
    traced: Service, upstream: Part, collector: Collector, redis: Redis
) -> None:
    """It costs no span and no byte in the queue; who is asked learns that it is not sampled."""
    await drained(redis)
    traced.worker.pause()
    try:
        silent, told, words = Client(sampled=False), Client(), secrets.token_hex(8)
        await silent.ask(traced, input=words)
        assert await marked(redis) == [False] * 3
        await told.ask(traced, input="hello")
        assert await marked(redis) == [False] * 5 + [True], "the response's entry alone"
    finally:
        traced.worker.resume()
    await batch_of(collector, told.trace)
    assert collector.of(silent.trace) == []
    [question] = await asked(upstream, words)
    assert re.fullmatch(f"00-{silent.trace}-[0-9a-f]{{16}}-00", question["headers"]["traceparent"])


HOSTILE = (
    "",
    "00",
    f"00-{'0' * 32}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'0' * 16}-01",
    f"ff-{'1' * 32}-{'1' * 16}-01",
    f"00-{'A' * 32}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'1' * 16}-01-more",
    f"00-{'1' * 33}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'1' * 16}-1",
    f" 00-{'1' * 32}-{'1' * 16}-01 x",
    f"00-{'1' * 32}-{'1' * 16}-01, 00-{'2' * 32}-{'2' * 16}-01",
    f"00-{'é' * 16}-{'1' * 16}-01",
    f"00-{'１' * 32}-{'1' * 16}-01",
    "x" * 8000,
    "00-" * 1000,
)


async def test_hostile_traceparents_are_ignored(traced: Service, upstream: Part, collector: Collector) -> None:
    for traceparent in HOSTILE:
        words = secrets.token_hex(8)
        client = Client()
        client.traceparent = traceparent
        await client.ask(traced, input=words)
        [question] = await asked(upstream, words)
        place = read_traceparent(question["headers"]["traceparent"])
        assert place is not None
        trace = f"{place.trace_id:032x}"
        assert trace not in ("1" * 32, "2" * 32)
        server = await collector.one("POST /v1/responses", trace)
        assert server.parent == ""


async def test_two_traceparents_are_none(traced: Service, upstream: Part) -> None:
    words, headers = secrets.token_hex(8), [("traceparent", Client().traceparent) for _ in range(2)]
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{traced.url}/responses", json={"input": words}) as response,
    ):
        assert response.status == 200
    [question] = await asked(upstream, words)
    assert all(header[1][3:35] not in question["headers"]["traceparent"] for header in headers)


def test_a_later_version_of_traceparent_is_read() -> None:
    assert read_traceparent(f"01-{'1' * 32}-{'2' * 16}-03-more") == (int("1" * 32, 16), int("2" * 16, 16), True)


async def test_failures_are_told_without_their_words(traced: Service, collector: Collector) -> None:
    refused, unknown = Client(), Client()
    await refused.send("POST", f"{traced.url}/responses", {"input": "hello", "model": "fake-500"}, status=502)
    server = await collector.one("POST /v1/responses", refused.trace)
    [turn] = collector.named("turn", refused.trace)
    [chat] = collector.named("chat fake-500", refused.trace)
    calls = collector.named("POST", refused.trace)
    assert [call.attributes["http.response.status_code"] for call in calls] == [500] * 3, "it was tried three times"
    for span in (server, turn, chat, *calls):
        assert (span.failed, span.message) == (True, "")
    assert server.attributes["error.type"] == "502"
    assert turn.attributes["error.type"] == chat.attributes["error.type"] == "upstream_error"
    await unknown.send("GET", f"{traced.url}/responses/resp_{'0' * 32}", status=404)
    server = await collector.one("GET /v1/responses/{response_id}", unknown.trace)
    assert (server.failed, server.attributes["http.response.status_code"]) == (False, 404)
    select = await collector.one("SELECT responses", unknown.trace)
    assert select.parent == server.id


async def test_entries_of_before(traced: Service, collector: Collector, redis: Redis) -> None:
    """A worker takes entries whose writers knew of no traces, and marks that nobody should have written."""
    await drained(redis)
    old = item(1, conversation="conv_old")
    header, _, body = item(2, conversation="conv_old").partition(b"\n")
    odd = header + b" trace:" + b"x" * 49 + b".\n" + body
    told = item(3, conversation="conv_old", text=f" trace:{'1' * 32}-{'1' * 16}.")
    await redis.rpush(QUEUE, old, odd, told)
    client = Client()
    await client.ask(traced, input="hello")
    _, batch = await batch_of(collector, client.trace)
    await drained(redis)
    assert not any(trace == "1" * 32 for span in collector.spans for trace, _ in span.links)
    assert batch.links


async def test_a_turn_goes_on_in_another_process(
    traced: Service, start_service: StartService, upstream: Part, collector: Collector
) -> None:
    other = await start_service(worker=False, **{name: traced.environment[name] for name in HANDED})
    client, gate = Client(), secrets.token_hex(4)
    await client.ask(other, input=gate, model=f"fake-gate-{gate}", background=True)
    await wait_until(lambda: asked(upstream, gate), "the upstream to be asked")
    await other.api.terminate()
    await release(upstream, gate)
    await batch_of(collector, client.trace)
    await wait_until(lambda: len(collector.named("turn", client.trace)) == 2, "the turn in both processes")
    turns = collector.named("turn", client.trace)
    assert [turn.attributes["chatbot.response.status"] for turn in turns] == ["handed_over", "completed"]


HANDED = ("OPENAI_BASE_URL", "MODEL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_BSP_SCHEDULE_DELAY")
