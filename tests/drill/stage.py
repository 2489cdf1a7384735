"""Where a drill plays: services in namespaces of their own, all of them scraped by one Prometheus."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chart.monitoring import RULES
from redis.asyncio import Redis

from tests.drill.hurried import hurry_files
from tests.drill.load import client_of, repeating
from tests.drill.prometheus import Cluster, Prometheus, Target, healthy, prometheus_in
from tests.fake_upstream import fake_upstream_in
from tests.running import Part, Postgres, Service, service_on, valkey_in


@dataclass(frozen=True)
class Place:
    """A namespace with an API, a worker, and everything they stand on."""

    namespace: str
    service: Service
    valkey: Part
    postgres: Postgres
    upstream: Part
    redis: Redis


@asynccontextmanager
async def watched(
    folder: Path, targets: Sequence[Target], *namespaces: str
) -> AsyncIterator[tuple[Prometheus, Cluster]]:
    """A Prometheus with the hurried rules, and what a healthy cluster tells of these namespaces."""
    cluster = Cluster({name: value for namespace in namespaces for name, value in healthy(namespace).items()})
    hurry_files(RULES, folder / "rules")
    prometheus = prometheus_in(folder, [*targets, cluster.target], folder / "rules")
    await cluster.start()
    try:
        await prometheus.start()
        yield prometheus, cluster
    finally:
        await prometheus.close()
        await cluster.close()


async def place_in(
    folder: Path, namespace: str, postgres: Postgres, settings: Callable[[Path, Part], dict[str, str]]
) -> Place:
    """Not started yet."""
    home = folder / namespace
    valkey, upstream = valkey_in(home), fake_upstream_in(home / "upstream")
    database = await postgres.new_database()
    service = service_on(valkey, postgres, database, home, **settings(home, upstream))
    return Place(namespace, service, valkey, postgres, upstream, Redis(host=valkey.host, port=valkey.port))


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[None]:
    """Have all of it run."""
    async with contextlib.AsyncExitStack() as stack:
        for part in (place.valkey, place.upstream):
            stack.push_async_callback(part.close)
            await part.start()
        stack.push_async_callback(place.redis.aclose)
        stack.push_async_callback(place.service.close)
        await place.service.start()
        yield


@asynccontextmanager
async def talked_to(place: Place, *, stream: bool) -> AsyncIterator[None]:
    """One client that takes five turns a second, whatever becomes of them."""
    async with client_of(place.service) as client, repeating(lambda: client.turn(stream=stream)):
        yield
