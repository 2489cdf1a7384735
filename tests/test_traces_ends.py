"""Traces without a collector, with a dead or hanging one, at SIGTERM, and what must never be in them."""

import asyncio
import functools
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from api.upstream.exchange import Ask
from api.upstream.said import input_messages
from core.entry import Kind, parse, tail
from core.otlp import Collector as OtlpCollector
from core.settings import Environment, TraceSettings, trace_settings
from core.tracing import error_type
from local.children import HOST, free_port
from local.parts import ROOT
from tests.conftest import StartService
from tests.fake_collector import Collector, collecting
from tests.running import Part, Service, run_worker
from tests.talking import Json, asked, drained
from tests.test_traces import SOON, Client, batch_of, marked
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

FAILING = "the collector does not take traces"
BACK = "the collector takes traces again"
# The exporter waits 10 s for an answer, and our own grace is 3 s: with these in use it is the second that counts.
IN_TIME_SECONDS = 9.0
# Loaded with the exporter, and with nothing else of ours.
PROTOBUF = "google/_upb"


@pytest.fixture
async def collector(anyio_backend: str) -> AsyncIterator[Collector]:  # noqa: ARG001 - one event loop for all
    async with collecting(free_port()) as running:
        yield running


@asynccontextmanager
async def running(
    start_service: StartService, collector: Collector, upstream: Part, **settings: str
) -> AsyncIterator[Service]:
    """A service that ends before its collector does."""
    url = f"http://{upstream.host}:{upstream.port}/v1"
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": SOON}
    service = await start_service(OPENAI_BASE_URL=url, MODEL="fake", **{**tracing, **settings})
    try:
        yield service
    finally:
        await service.close()


def lines(part: Part, message: str) -> list[Json]:
    return [line for line in map(orjson.loads, part.log_text().splitlines()) if message in line["message"]]


async def test_off_without_a_collector(
    collector: Collector, start_service: StartService, upstream: Part, redis: Redis
) -> None:
    """Not even OpenTelemetry is loaded, and variables that others need change nothing."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_TRACES_SAMPLER": "xray"}
    client, words = Client(), secrets.token_hex(8)
    async with running(start_service, collector, upstream, **settings) as service:
        service.worker.pause()
        await client.ask(service, input=words)
        assert await marked(redis) == [False] * 3
        service.worker.resume()
        await drained(redis)
        for part in (service.api, service.worker):
            assert PROTOBUF not in Path(f"/proc/{part.pid}/maps").read_text(encoding="utf-8")
    [question] = await asked(upstream, words)
    assert "traceparent" not in question["headers"]


def test_off_where_it_is_disabled() -> None:
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert trace_settings(Environment(named)).endpoint == "http://collector:4318/v1/traces"
    assert trace_settings(Environment({**named, "OTEL_SDK_DISABLED": "true"})).endpoint == ""


async def test_a_sampler_that_follows_clients(
    collector: Collector, start_service: StartService, upstream: Part, redis: Redis
) -> None:
    """None of its own; of clients' turns all, the batch with them."""
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    client, nobody = Client(), Client()
    nobody.traceparent = ""
    async with running(start_service, collector, upstream, **sampler) as service:
        await nobody.ask(service, input="hello")
        await drained(redis)
        await client.ask(service, input="hello")
        _, batch = await batch_of(collector, client.trace)
        assert await collector.one("COPY items", batch.trace)
    assert {span.trace for span in collector.spans} == {client.trace, batch.trace}


def test_as_many_are_sampled_as_asked_for() -> None:
    """Who decides quickly that one is not decides by the same id as the SDK."""
    endpoint = f"http://{HOST}:{free_port()}/v1/traces"
    sending = OtlpCollector(TraceSettings(endpoint, sampler="parentbased_traceidratio", ratio=0.5), "test")
    spans = [sending.begin("request", "server", None, None) for _ in range(1000)]
    sending.stop()
    assert 400 < sum(span.get_span_context().trace_flags.sampled for span in spans) < 600


def test_an_error_is_told_without_its_words() -> None:
    assert error_type(ValueError("what was said")) == "ValueError"


async def test_the_last_traces_are_sent_at_the_end(
    collector: Collector, start_service: StartService, upstream: Part, redis: Redis
) -> None:
    """Both are told to stop long before the next batch of spans would go, as a worker is that is scaled to zero."""
    client = Client()
    async with running(start_service, collector, upstream, OTEL_BSP_SCHEDULE_DELAY="600000") as service:
        await client.ask(service, input="hello")
        await drained(redis)
        assert collector.spans == []
        assert (await service.worker.terminate(), await service.api.terminate()) == (0, 0)
    _, batch = await batch_of(collector, client.trace)
    assert "EVALSHA ack" in collector.names(batch.trace)
    assert {"POST /v1/responses", "turn", "EVALSHA finish"} <= set(collector.names(client.trace))


async def test_a_collector_that_hangs(
    collector: Collector, start_service: StartService, upstream: Part, redis: Redis
) -> None:
    """Turns are answered and stored, both processes end in time, and say what they could not do."""
    collector.hangs = True
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
    async with running(start_service, collector, upstream, **small) as service:
        for _ in range(20):
            await Client().ask(service, input="hello")
        await drained(redis)
        await wait_until(lambda: collector.asked >= 2, "both processes to wait for the collector")
        began = time.monotonic()
        assert set(await asyncio.gather(service.api.terminate(), service.worker.terminate())) == {0}
        assert time.monotonic() - began < IN_TIME_SECONDS
        for part in (service.api, service.worker):
            assert len(lines(part, "the last traces were not sent")) == 1
            assert not lines(part, "Queue full")


async def test_a_collector_that_refuses_is_told_of_once(
    collector: Collector, start_service: StartService, upstream: Part
) -> None:
    collector.status = 400
    async with running(start_service, collector, upstream, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2") as service:
        await Client().ask(service, input="hello")
        await wait_until(lambda: collector.refused >= 2 * 3, "several batches to be refused")
        collector.status = 200
        await Client().ask(service, input="hello")
        for part in (service.api, service.worker):
            await wait_until(functools.partial(lines, part, BACK), "the news")
            assert len(lines(part, FAILING)) == len(lines(part, BACK)) == 1
            assert not [line for line in lines(part, "") if line["logger"].startswith("opentelemetry")]


KINDS = ("instructions", "input", "tool", "arguments", "text")
CANARIES = {name: f"canary-{name}-{secrets.token_hex(4)}" for name in KINDS}
SAID = [
    {"type": "message", "role": "user", "content": CANARIES["input"]},
    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": CANARIES["arguments"]},
    {"type": "function_call_output", "call_id": "call_1", "output": CANARIES["tool"]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": CANARIES["text"]}]},
]


async def say_canaries(client: Client, service: Service, collector: Collector) -> None:
    """Content wherever a client may put some, and a provider that sends back what it should not."""
    body: Json = {"instructions": CANARIES["instructions"], "input": SAID, "model": "fake-history"}
    await client.send("POST", f"{service.url}/responses", {**body, "stream": True})
    await client.send("POST", f"{service.url}/responses", {**body, "model": "fake-echo-key"}, status=400)
    await client.send("GET", f"{service.url}/conversations?q={CANARIES['text']}")
    await batch_of(collector, client.trace)
    await collector.one("GET /v1/conversations", client.trace)
    await collector.one("chat fake-echo-key", client.trace)


async def test_no_content_and_no_secret(collector: Collector, start_service: StartService, upstream: Part) -> None:
    secret = f"sk-{secrets.token_hex(16)}"
    async with running(start_service, collector, upstream, OPENAI_API_KEY=secret) as service:
        await say_canaries(Client(), service, collector)
    sent = b"".join(collector.bodies)
    for canary in (*CANARIES.values(), secret):
        assert canary.encode() not in sent


async def test_content_where_it_is_wanted(collector: Collector, start_service: StartService, upstream: Part) -> None:
    client, secret = Client(), f"sk-{secrets.token_hex(16)}"
    wanted = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true", "OPENAI_API_KEY": secret}
    async with running(start_service, collector, upstream, **wanted) as service:
        await say_canaries(client, service, collector)
        tool = {"type": "function", "name": "look", "parameters": {}}
        await client.ask(service, model="fake-tool", input="look", tools=[tool])
        called = (await collector.one("chat fake-tool", client.trace)).attributes
    chat = (await collector.one("chat fake-history", client.trace)).attributes
    text = {name: {"type": "text", "content": canary} for name, canary in CANARIES.items()}
    assert orjson.loads(str(chat["gen_ai.system_instructions"])) == [text["instructions"]]
    call = {"type": "tool_call", "id": "call_1", "name": "look", "arguments": CANARIES["arguments"]}
    result = {"type": "tool_call_response", "id": "call_1", "response": [text["tool"]]}
    assert orjson.loads(str(chat["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [text["input"]]},
        {"role": "assistant", "parts": [call]},
        {"role": "tool", "parts": [result]},
        {"role": "user", "parts": [text["text"]]},
    ]
    [answer] = orjson.loads(str(chat["gen_ai.output.messages"]))
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "stop")
    assert CANARIES["text"] in answer["parts"][0]["content"]
    assert orjson.loads(str(called["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "call_fake", "name": "look", "arguments": '{"city": "Oslo"}'}],
            "finish_reason": "tool_call",
        }
    ]
    assert secret.encode() not in b"".join(collector.bodies)


def test_content_has_an_end() -> None:
    """Of a long history the newest messages; of each text its beginning; of an image that there is one."""
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{'A' * 100_000}"}
    said: list[Json] = [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": f"{number} {'x' * 10_000}"}, image],
        }
        for number in range(100)
    ]
    said.append({"type": "reasoning", "summary": [], "encrypted_content": "sealed"})
    told = orjson.loads(input_messages(Ask("model", said)))
    assert 5 <= len(told) <= 8
    assert told[-1] == {"role": "assistant", "parts": [{"type": "reasoning"}]}
    text, picture = told[-2]["parts"]
    assert (len(text["content"]), text["content"][:3], picture) == (8192, "99 ", {"type": "input_image"})
    assert told[0]["parts"][0]["content"].startswith(f"{99 - len(told) + 2} ")


async def test_a_trace_is_printed(start_service: StartService, upstream: Part, redis: Redis) -> None:
    """`python -m local.traces`: a trace as a tree, and behind it the one that it leads to."""
    printer = Collector(free_port())
    command = (sys.executable, "-m", "local.traces", "--port", str(printer.port))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    try:
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readline(), 20)
        client, later = Client(), Client()
        async with running(start_service, printer, upstream) as service:
            await client.ask(service, input="hello", model="fake-500-then-ok")
            await drained(redis)
            await later.ask(service, input="hello")
            await drained(redis)
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    names = [line.split(" ms  ")[-1].rstrip() for line in output.decode().splitlines()]
    shown = [re.sub(r" {2,}chatbot-", " chatbot-", name) for name in names]
    assert shown[:8] == [
        "",
        f"trace {client.trace}",
        "POST /v1/responses chatbot-api",
        "  EVALSHA begin chatbot-api",
        "  turn chatbot-api",
        "    chat fake-500-then-ok chatbot-api",
        "      POST  ERROR upstream_error chatbot-api",
        "      POST chatbot-api",
    ]
    batch = shown.index(f"process chatQueue chatbot-worker  → {client.trace[:8]}…")
    assert batch < shown.index("  COPY items chatbot-worker") < shown.index(f"trace {later.trace}")


async def test_wrong_settings_are_told() -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_SAMPLER": "most",
        "OTEL_TRACES_SAMPLER_ARG": "2",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer one, sesame",
    }
    status, _, errors = await run_worker(settings)
    assert status == 2
    for name in settings:
        assert name in errors
    assert "sesame" not in errors


@pytest.mark.parametrize("headers", ["authorization=Basic a2V5Og==", "a=b,c=d=e f", "api-key=%20x , x-tenant=1", ""])
def test_sound_headers(headers: str) -> None:
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_EXPORTER_OTLP_HEADERS": headers}
    environment = Environment(named)
    assert trace_settings(environment).headers == headers
    assert environment.errors == []


def test_a_mark_is_no_pair_of_positions() -> None:
    """put_back.lua, of any version, looks for two numbers with a space between them behind an entry's id."""
    entry = tail(Kind.DELETE_RESPONSE, "resp_1", trace=f"{'1' * 32}-{'2' * 16}").rstrip(b"\n") + b" 123 456\n"
    assert re.findall(rb"(\d+) (\d+)", entry.partition(b"resp_1")[2]) == [(b"123", b"456")]
    parsed = parse(b"1 default thr_1 7 " + entry)
    assert (parsed.kind, parsed.id, parsed.extra[1:]) == (Kind.DELETE_RESPONSE, "resp_1", ("123", "456"))
