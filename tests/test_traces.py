"""Traces as a collector receives them: real processes, OTLP on a real socket."""

import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest

from local.children import free_port
from tests.conftest import StartService
from tests.fake_collector import Collector, collecting
from tests.running import Part, Service

SOON = "100"  # OTEL_BSP_SCHEDULE_DELAY in milliseconds


@pytest.fixture(scope="module")
async def collector(anyio_backend: str) -> AsyncIterator[Collector]:  # noqa: ARG001 - one event loop for all
    async with collecting(free_port()) as running:
        yield running


@pytest.fixture(scope="module")
async def traced(start_service: StartService, upstream: Part, collector: Collector) -> Service:
    return await start_service(
        OPENAI_BASE_URL=f"http://{upstream.host}:{upstream.port}/v1",
        MODEL="fake-history",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=sesame",
        OTEL_BSP_SCHEDULE_DELAY=SOON,
    )


class Client:
    """A client that is traced itself: `trace` and `span` name its own span."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace}-{self.span}-{'01' if sampled else '00'}"}

    async def post(self, url: str, body: dict[str, object]) -> dict[str, object]:
        async with (
            aiohttp.ClientSession(headers=self.headers) as session,
            session.post(url, json=body) as response,
        ):
            assert response.status == 200, await response.text()
            answer: dict[str, object] = await response.json()
            return answer


async def test_a_turn_is_part_of_its_clients_trace(traced: Service, collector: Collector) -> None:
    client = Client()
    await client.post(f"{traced.url}/responses", {"input": "hello"})
    server = await collector.one("POST /v1/responses", client.trace)
    assert (server.parent, server.kind, server.service) == (client.span, "server", "chatbot-api")
    assert server.attributes["http.response.status_code"] == 200
    begin = await collector.one("EVALSHA begin", client.trace)
    assert (begin.parent, begin.kind, begin.attributes["db.system.name"]) == (server.id, "client", "redis")
    assert collector.headers[-1]["x-collector-key"] == "sesame"
