"""A small load of everything that happens in production, and what the real processes tell of it."""

import functools
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import APIStatusError
from redis.asyncio import Redis

from core.queue import QUEUE
from local.children import HOST, free_port
from tests.chatting import ask, rest, stream, text_until
from tests.conftest import StartService
from tests.entries import broken_item, push
from tests.fake_collector import Collector, collecting
from tests.metric_list import PROCESSES, constants, scraped_name
from tests.running import Part, Service
from tests.scraping import Scrape, scrape
from tests.talking import release, talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# Of the first provider the second one knows every model that fails there.
UPSTREAMS = """
[providers.first]
base_url = "{url}"
[providers.second]
base_url = "{url}"
[models.fake]
targets = [{{ provider = "first" }}]
[models.ill]
targets = [{{ provider = "first", model = "fake-401" }}, {{ provider = "second", model = "fake" }}]
[models.passing]
targets = [{{ provider = "first", model = "fake-500-then-ok" }}]
[models.dead]
targets = [{{ provider = "first", model = "fake-401" }}]
[models."*"]
targets = [{{ provider = "first" }}]
"""
KEYS = """
[[keys]]
tenant = "acme"
name = "load"
sha256 = "{acme}"
[[keys]]
tenant = "tight"
name = "limited"
sha256 = "{tight}"
[tenants.tight]
requests_per_minute = 1
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
async def collector(anyio_backend: str) -> AsyncIterator[Collector]:  # noqa: ARG001 - one event loop for all
    async with collecting(free_port()) as one:
        yield one


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part, collector: Collector, folder: Path) -> Service:
    upstreams, keys = folder / "load-upstreams.toml", folder / "load-keys.toml"
    upstreams.write_text(UPSTREAMS.format(url=f"http://{HOST}:{upstream.port}/v1"), encoding="utf-8")
    keys.write_text(KEYS.format(acme=digest("acme"), tight=digest("tight")), encoding="utf-8")
    settings = {"UPSTREAMS_FILE": str(upstreams), "KEYS_FILE": str(keys), "AUTH": ""}
    settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    return await start_service(MODEL="fake", **settings)


async def status_of(call: Any) -> int:
    with pytest.raises(APIStatusError) as told:
        await call
    return told.value.status_code


async def load(service: Service, upstream: Part, redis: Redis) -> None:
    async with talk(service, "acme") as client, talk(service, "tight") as tight:
        conversation = (await client.conversations.create()).id
        await ask(client, "one", conversation=conversation)
        for text in ("two", "three"):
            await rest(await stream(client, text, conversation=conversation))
        await ask(client, "named by nobody", model="fake-bench-4", store=False)
        for model in ("ill", "passing"):
            await ask(client, "x", model=model)
        assert await status_of(ask(client, "x", model="dead")) == 502
        held = await stream(client, "x", model="fake-hold-load", conversation=conversation)
        await text_until(held, 1)
        assert (await scrape(service)).value("chatbot_streams_open") == 1
        assert (await scrape(service)).value("chatbot_turns_running") == 1
        assert await status_of(ask(client, "x", conversation=conversation)) == 409
        await release(upstream, "load")
        await rest(held)
        for _ in range(2):
            await client.responses.create(input="again", extra_headers={"Idempotency-Key": "load"})
        await ask(tight, "x")
        assert await status_of(ask(tight, "x")) == 429
        await push(redis, broken_item(1, b'{"a":"\\u0000"}'))
        await wait_until(lambda: _is_empty(redis), "all to be stored, so that it may be evicted")
        await redis.delete(f"conv:acme:{conversation}", f"items:acme:{conversation}")
        await ask(client, "cold", conversation=conversation)
        await client.conversations.delete(conversation)
    async with aiohttp.ClientSession(f"http://{HOST}:{service.api.port}") as http:
        for method, path in (("GET", "/nowhere"), ("PROPFIND", "/livez"), ("GET", "/livez")):
            async with http.request(method, path) as answer:
                await answer.read()


async def _is_empty(redis: Redis) -> bool:
    return not await redis.llen(QUEUE)


@pytest.fixture(scope="module")
async def told(service: Service, upstream: Part, valkey: Part) -> dict[str, Scrape]:
    """What both processes tell after the load, when all of it is stored."""
    async with Redis(host=valkey.host, port=valkey.port) as redis:
        await load(service, upstream, redis)
        await wait_until(lambda: _is_empty(redis), "all to be stored")

    async def dead_letter_is_seen() -> bool:
        return (await scrape(service)).value("chatbot_dead_letters") == 1

    await wait_until(dead_letter_is_seen, "the dead letter to be counted", 15)
    return {process: await scrape(service, process) for process in ("api", "worker")}


@pytest.mark.parametrize(
    ("heading", "process"),
    [("Both processes", "api"), ("Both processes", "worker"), ("The API", "api"), ("The worker", "worker")],
)
def test_every_metric_of_the_list_is_told(told: dict[str, Scrape], heading: str, process: str) -> None:
    names = told[process].names()
    listed = {scraped_name(metric) for metric in constants(PROCESSES[heading])}
    assert {name for name in listed if name not in names and f"{name}_count" not in names} == set()
    own = {name for name in names if name.startswith("chatbot_worker_")}
    assert bool(own) == (process == "worker"), "each process tells its own and no other's"


API = [
    ("chatbot_http_requests_total", {"route": "/v1/responses", "method": "POST", "status": "200"}, 11),
    ("chatbot_http_requests_total", {"route": "/v1/responses", "status": "409"}, 1),
    ("chatbot_http_requests_total", {"route": "/v1/conversations/{conversation_id}", "method": "DELETE"}, 1),
    ("chatbot_http_requests_total", {"route": "other", "method": "GET", "status": "404"}, 1),
    ("chatbot_http_requests_total", {"route": "/v1/responses", "method": "POST", "status": "503"}, 0),
    ("chatbot_http_requests_total", {"method": "other", "status": "405"}, 1),
    ("chatbot_http_request_duration_seconds_count", {"route": "/v1/responses", "status_class": "2xx"}, 11),
    ("chatbot_http_errors_total", {"code": "conversation_locked"}, 1),
    ("chatbot_http_errors_total", {"code": "rate_limit_exceeded"}, 1),
    ("chatbot_tenant_requests_total", {"tenant": "tight", "key": "limited"}, 2),
    ("chatbot_tenant_rate_limited_total", {"tenant": "tight", "limit": "requests"}, 1),
    ("chatbot_streams_open", {}, 0),
    ("chatbot_turns_running", {}, 0),
    ("chatbot_turns_total", {"status": "completed"}, 10),
    ("chatbot_turns_total", {"status": "failed"}, 1),
    ("chatbot_turn_begin_duration_seconds_count", {}, 10),
    ("chatbot_turn_finish_duration_seconds_count", {}, 10),
    ("chatbot_time_to_first_token_seconds_count", {"model": "fake"}, 2),
    ("chatbot_time_per_output_token_seconds_count", {"model": "other"}, 1),
    ("chatbot_tokens_total", {"model": "other", "kind": "output"}, 3 + 31),
    ("chatbot_tokens_total", {"model": "ill", "kind": "output"}, 31),
    ("chatbot_tokens_total", {"model": "ill", "kind": "output_reasoning"}, 1),
    ("chatbot_locks_refused_total", {}, 1),
    ("chatbot_idempotent_replays_total", {}, 1),
    ("chatbot_history_reads_total", {"outcome": "miss"}, 1),
    ("chatbot_history_reads_total", {"outcome": "hit"}, 4),
    ("chatbot_history_rebuilds_total", {}, 1),
    ("chatbot_upstream_errors_total", {"upstream": "first", "kind": "upstream_auth"}, 2),
    ("chatbot_upstream_retries_total", {"upstream": "first"}, 1),
    ("chatbot_upstream_fallbacks_total", {"upstream": "first"}, 1),
    ("chatbot_upstream_attempts_total", {"upstream": "second"}, 1),
    ("chatbot_upstream_wait_seconds_count", {"upstream": "second"}, 1),
    ("chatbot_queue_limit_entries", {}, 1_000_000),
    ("chatbot_connections_limit", {"store": "postgresql"}, 8),
]


@pytest.mark.parametrize(("name", "labels", "value"), API)
def test_the_api_counts_what_happened(told: dict[str, Scrape], name: str, labels: dict[str, str], value: float) -> None:
    assert told["api"].value(name, **labels) == value


def test_the_worker_stored_what_the_api_had_queued(told: dict[str, Scrape]) -> None:
    queued = told["api"].value("chatbot_queue_enqueued_entries_total")
    stored = told["worker"].value("chatbot_worker_stored_entries_total")
    assert stored == queued > 20
    assert told["worker"].value("chatbot_worker_dead_letters_total") == 1
    assert told["worker"].value("chatbot_worker_batch_entries_sum") == queued + 1
    for name in ("batch_duration", "persistence_lag"):
        assert told["worker"].value(f"chatbot_worker_{name}_seconds_count") > 0


def test_no_label_holds_what_a_client_chose(told: dict[str, Scrape]) -> None:
    """Whoever invents models, paths and methods would make a series of each."""
    for found in told.values():
        values = {value for family in found.families for sample in family.samples for value in sample.labels.values()}
        assert not {value for value in values if "bench" in value or value in ("/nowhere", "PROPFIND", "hold")}


EXEMPLARS = [
    ("api", "chatbot_http_request_duration_seconds_bucket", ""),
    ("api", "chatbot_turn_duration_seconds_bucket", "turn"),
    ("api", "chatbot_turn_begin_duration_seconds_bucket", "turn"),
    ("api", "chatbot_time_to_first_token_seconds_bucket", "turn"),
    ("api", "chatbot_upstream_wait_seconds_bucket", "turn"),
    ("worker", "chatbot_worker_batch_duration_seconds_bucket", f"process {QUEUE}"),
    ("worker", "chatbot_worker_persistence_lag_seconds_bucket", f"process {QUEUE}"),
]


@pytest.mark.parametrize(("process", "name", "span"), EXEMPLARS)
async def test_a_duration_leads_to_its_trace(
    told: dict[str, Scrape], service: Service, collector: Collector, process: str, name: str, span: str
) -> None:
    assert told[process].samples(name), "it is there without exemplars in the older form, too"
    samples = (await scrape(service, process, openmetrics=True)).samples(name)
    traces = [one.exemplar.labels["trace_id"] for one in samples if one.exemplar]
    assert traces
    for trace in traces:
        await wait_until(functools.partial(_has, collector, trace, span), f"a span {span!r} in the trace")


def _has(collector: Collector, trace: str, span: str) -> bool:
    return any(name.startswith(span) for name in collector.names(trace))
