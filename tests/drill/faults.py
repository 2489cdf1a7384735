"""The faults, each with the alerts that it must raise: what is before `yield` causes it, what is behind mends it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.drill.load import client_of
from tests.drill.prometheus import Cluster
from tests.drill.stage import Place
from tests.entries import broken_item, push
from tests.running import worker_command
from tests.talking import release

# Longer than the objective of a first piece.
LATE_SECONDS = 5.5
LATE_TURNS = 40
GATE = "drill"
SHARE_OF_MEMORY = 0.97


@dataclass(frozen=True, slots=True)
class Fault:
    """`cause` lasts for as long as its context does."""

    words: str
    alerts: tuple[str, ...]
    cause: Callable[[Place, Cluster], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def postgres_stopped(place: Place, _: Cluster) -> AsyncIterator[None]:
    await place.postgres.terminate()
    yield
    await place.postgres.start()


@asynccontextmanager
async def poison_queued(place: Place, _: Cluster) -> AsyncIterator[None]:
    await push(place.redis, broken_item(7, b'{"text":"\\u0000"}'))
    yield
    listed = (await worker_command(place.service, "dead-letters", "list", "--json"))[1]
    letters = [str(orjson.loads(line)["id"]) for line in listed.splitlines()]
    assert (await worker_command(place.service, "dead-letters", "drop", *letters))[0] == 0


@asynccontextmanager
async def worker_stopped(place: Place, _: Cluster) -> AsyncIterator[None]:
    await place.service.worker.terminate()
    yield
    await place.service.worker.start()


@asynccontextmanager
async def api_stopped(place: Place, _: Cluster) -> AsyncIterator[None]:
    await place.service.api.terminate()
    yield
    await place.service.api.start()


@asynccontextmanager
async def redis_wiped(place: Place, _: Cluster) -> AsyncIterator[None]:
    await place.redis.flushall()
    yield


@asynccontextmanager
async def redis_short_of_memory(place: Place, _: Cluster) -> AsyncIterator[None]:
    before = str((await place.redis.config_get("maxmemory"))["maxmemory"])
    used = (await place.redis.info("memory"))["used_memory"]
    await place.redis.config_set("maxmemory", int(used / SHARE_OF_MEMORY))
    yield
    await place.redis.config_set("maxmemory", before)


@asynccontextmanager
async def config_denied(place: Place, _: Cluster) -> AsyncIterator[None]:
    """As with managed services; each process looks when it starts."""
    await _restarted_with(place, "-config")
    yield
    await _restarted_with(place, "+config")


async def _restarted_with(place: Place, rights: str) -> None:
    await place.redis.acl_setuser("default", enabled=True, commands=[rights])
    await asyncio.gather(place.service.api.restart(), place.service.worker.restart())


@asynccontextmanager
async def upstream_stopped(place: Place, _: Cluster) -> AsyncIterator[None]:
    await place.upstream.kill()
    yield
    await place.upstream.start()


@asynccontextmanager
async def upstream_slow(place: Place, _: Cluster) -> AsyncIterator[None]:
    async with client_of(place.service) as client:
        # Prometheus sees no increase in a series that begins: these models are told as one, which has to be there.
        await client.turn(model="fake-bench-2", stream=True)
        turns = [client.turn(model=f"fake-gate-{GATE}", stream=True) for _ in range(LATE_TURNS)]
        waiting = asyncio.gather(*turns)
        await asyncio.sleep(LATE_SECONDS)
        await release(place.upstream, GATE)
        await waiting
    yield


@asynccontextmanager
async def upstreams_file_faulty(place: Place, _: Cluster) -> AsyncIterator[None]:
    file = Path(place.service.environment["UPSTREAMS_FILE"])
    sound = file.read_text(encoding="utf-8")
    file.write_text("[providers.x", encoding="utf-8")
    yield
    file.write_text(sound, encoding="utf-8")


@asynccontextmanager
async def migration_failed(place: Place, cluster: Cluster) -> AsyncIterator[None]:
    """Told by the stand-in for kube-state-metrics."""
    failed = _only(cluster, "kube_job_failed", place)
    cluster.samples[failed] = 1
    yield
    cluster.samples[failed] = 0


@asynccontextmanager
async def keda_failing(place: Place, cluster: Cluster) -> AsyncIterator[None]:
    """Told by the stand-in for KEDA's operator."""
    name = _only(cluster, "keda_scaled_object_errors_total", place)

    async def fail() -> None:
        while True:
            cluster.samples[name] += 1
            await asyncio.sleep(1)

    failing = asyncio.create_task(fail())
    try:
        yield
    finally:
        failing.cancel()
        await asyncio.wait([failing])


def _only(cluster: Cluster, name: str, place: Place) -> str:
    """The one series of this metric that tells of this place."""
    (found,) = (one for one in cluster.samples if one.startswith(name) and f'namespace="{place.namespace}"' in one)
    return found


# By the namespace in which they are played, one after the other; the namespaces play at the same time.
FAULTS = {
    "queue": [
        Fault(
            "PostgreSQL stopped while clients go on",
            (
                "ChatbotStoreAway",
                "ChatbotOldestEntryTooOld",
                "ChatbotQueueGrowsAtMaximum",
                "ChatbotQueueNearlyFull",
            ),
            postgres_stopped,
        ),
        Fault("an entry that PostgreSQL refuses", ("ChatbotDeadLetters",), poison_queued),
        Fault("the worker stopped while clients go on", ("ChatbotWorkerAbsent",), worker_stopped),
        Fault("the API stopped", ("ChatbotApiAbsent",), api_stopped),
    ],
    "redis": [
        Fault("Redis wiped while clients go on", ("ChatbotRedisLostData",), redis_wiped),
        Fault("`maxmemory` shortly above what is used", ("ChatbotRedisMemory",), redis_short_of_memory),
        Fault("CONFIG denied to the processes", ("ChatbotDurabilityNotVerified",), config_denied),
    ],
    "models": [
        Fault(
            "the only provider killed",
            (
                "ChatbotUpstreamErrors",
                "ChatbotBreakerOpen",
                "ChatbotAvailabilityBurnsFast",
                "ChatbotAvailabilityBurnsSlowly",
            ),
            upstream_stopped,
        ),
        Fault("a fault in the upstreams' file", ("ChatbotSettingsFileFaulty",), upstreams_file_faulty),
    ],
    "slow": [
        Fault(
            "a provider that is silent for 5.5 s",
            ("ChatbotLatencyBurnsFast", "ChatbotLatencyBurnsSlowly"),
            upstream_slow,
        ),
        Fault("a migration's Job that fails (told by a stand-in)", ("ChatbotMigrationFailed",), migration_failed),
        Fault("KEDA can't read its triggers (told by a stand-in)", ("ChatbotKedaErrors",), keda_failing),
    ],
}
