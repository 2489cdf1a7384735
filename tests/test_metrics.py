"""What Prometheus can see: the list in the documentation, and a scrape of the real processes."""

import asyncio
import functools
import math
from collections.abc import Callable
from types import ModuleType

import pytest
from redis.asyncio import Redis

from core.queue import QUEUE
from local.parts import ROOT
from tests.chatting import ask, client_of
from tests.conftest import StartService
from tests.metric_list import PROCESSES, table
from tests.running import Part, Service
from tests.scraping import PROCESSES as SCRAPED
from tests.scraping import Scrape, scrape
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# A sample of Redis, and what it may wait for one that hangs; one of PostgreSQL.
SAMPLED_SECONDS = 15.0


@pytest.mark.parametrize("heading", PROCESSES)
def test_the_documentation_lists_every_metric_in_the_words_of_its_help(heading: str) -> None:
    module: ModuleType = PROCESSES[heading]
    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    section = text.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    assert section.strip() == table(module), f"write this under '### {heading}':\n{table(module)}"


async def in_both(service: Service, seen: Callable[[Scrape], bool], description: str, *, openmetrics: bool) -> None:
    async def look(process: str) -> bool:
        return seen(await scrape(service, process, openmetrics=openmetrics))

    waits = [wait_until(functools.partial(look, one), f"the {one} {description}", SAMPLED_SECONDS) for one in SCRAPED]
    await asyncio.gather(*waits)


async def test_the_api_tells_of_the_queue_while_there_is_no_worker(start_service: StartService, redis: Redis) -> None:
    service = await start_service(MODEL="echo", worker=False)
    async with client_of(service) as client:
        await ask(client, "hello")
    depth = await redis.llen(QUEUE)
    assert depth > 0

    async def is_aging() -> bool:
        found = await scrape(service)
        age = found.value("chatbot_queue_oldest_entry_age_seconds")
        return found.value("chatbot_queue_depth") == depth and 1 < age < 60

    await wait_until(is_aging, "the queue's age to be told", SAMPLED_SECONDS)
    await service.worker.start()

    def is_empty(found: Scrape) -> bool:
        names = ("chatbot_queue_depth", "chatbot_queue_oldest_entry_age_seconds", "chatbot_dead_letters")
        return [found.value(name) for name in names] == [0, 0, 0]

    await in_both(service, is_empty, "to tell that all is stored", openmetrics=False)
    await service.close()


async def test_metrics_are_told_while_redis_hangs(service: Service, valkey: Part) -> None:
    """In either form, and at once; of the queue nothing is said that may not be true any more."""
    valkey.pause()

    def is_unknown(found: Scrape) -> bool:
        names = ("chatbot_queue_depth", "chatbot_redis_memory_bytes", "chatbot_redis_memory_limit_bytes")
        unknown = all(math.isnan(found.value(name)) for name in names)
        return unknown and found.value("chatbot_store_up", store="redis") == 0

    try:
        await in_both(service, is_unknown, "to notice", openmetrics=True)
    finally:
        valkey.resume()

    def is_back(found: Scrape) -> bool:
        both = [found.value("chatbot_store_up", store=store) for store in ("redis", "postgresql")]
        return both == [1, 1] and found.value("chatbot_queue_depth") == 0

    await in_both(service, is_back, "to have seen Redis again", openmetrics=False)


async def test_postgresql_is_looked_at_while_redis_hangs(
    start_service: StartService, valkey: Part, postgres: Part
) -> None:
    """And what it told last stays: nobody replays a dead letter while it is away."""
    service = await start_service(MODEL="echo")

    def told(up: int) -> Callable[[Scrape], bool]:
        return lambda found: (
            found.value("chatbot_store_up", store="postgresql") == up and found.value("chatbot_dead_letters") == 0
        )

    await in_both(service, told(1), "to have asked PostgreSQL", openmetrics=False)
    valkey.pause()
    try:
        await postgres.kill()
        try:
            await in_both(service, told(0), "to miss PostgreSQL", openmetrics=False)
        finally:
            await postgres.start()
        await in_both(service, told(1), "to find PostgreSQL", openmetrics=False)
    finally:
        valkey.resume()
    await service.close()
