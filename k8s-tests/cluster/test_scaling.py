"""KEDA on the queue's length: no worker while nothing is queued, more of them while much is, and nothing stranded."""

import time
from collections.abc import AsyncIterator

import pytest

from cluster.check import Stores, bundled_stores, visit
from cluster.keda import keda_is_there, scaler_is_ready
from cluster.release import Release
from cluster.telling import measured
from core.queue import HOT, LEASES
from tests.chaos.acts import append, begin_talk
from tests.chaos.users import load
from tests.waiting import wait_until
from worker.queue import HOT_SECONDS

pytestmark = pytest.mark.anyio

POLL_SECONDS = 5
COOLDOWN_SECONDS = 10
MOST = 3
# Small, so that some thousand entries are work for all of them; a range of the queue must be smaller than what each
# worker is wanted for.
BATCH, PER_WORKER = 200, 400
ITEMS = 2500
SCALED = {
    "worker": {
        "batchEntries": BATCH,
        "keda": {
            "enabled": True,
            "minReplicas": 0,
            "maxReplicas": MOST,
            "pollingInterval": POLL_SECONDS,
            "cooldownPeriod": COOLDOWN_SECONDS,
            "listLength": PER_WORKER,
        },
    }
}
# KEDA's look, the pod's start, its first range: the aim is 10 s after the look, on a machine that does nothing else.
STORED_SECONDS = POLL_SECONDS + 25
# The last worker stays for so long after the last entry; the HPA looks every 15 s in most clusters.
SCALE_SECONDS = HOT_SECONDS + 90.0


@pytest.fixture
async def scaled(main: Release) -> AsyncIterator[Release]:
    if not await keda_is_there():
        pytest.skip("!!! NOTHING IS TESTED OF SCALING: KEDA is not in this cluster")
    await main.become(SCALED)
    yield main
    await main.become({})


async def test_workers_from_0_to_n_to_0(scaled: Release) -> None:
    release, stores = scaled, await bundled_stores(scaled)
    await wait_until(lambda: scaler_is_ready(release), "KEDA to reach Redis", SCALE_SECONDS)
    # As if nothing had been stored for so long that the last worker may go.
    await stores.redis("DEL", HOT)
    await _wait_for_workers(release, 0)
    async with visit(release) as town:
        talk = await begin_talk(town, town.door)
        began = time.monotonic()
        assert await append(town, town.door, talk) == 200
        stored_after = await _until_stored(stores, talk.conversation, began)
        measured(f"0 workers, first entry queued, until it is stored (KEDA looks every {POLL_SECONDS} s)", stored_after)
        assert stored_after < STORED_SECONDS

        await release.namespace.scale_stateful_set(release.object_name("postgresql"), 0)
        async with load(town, town.door) as users:
            await users.reach(ITEMS)
        await _wait_for_workers(release, MOST)
        await release.namespace.scale_stateful_set(release.object_name("postgresql"), 1)
        back = time.monotonic()
        await stores.drain()
        measured(f"PostgreSQL back, until {ITEMS} queued items are stored by {MOST} workers", time.monotonic() - back)
        await _wait_for_workers(release, 0)
        quiet = f"{HOT_SECONDS} s without an entry, then KEDA's cool-down of {COOLDOWN_SECONDS} s"
        measured(f"the same, until 0 workers again ({quiet})", time.monotonic() - back)
        assert await stores.depth() == 0
        assert await stores.redis("ZCARD", LEASES) == "0"


async def _until_stored(stores: Stores, conversation: str, began: float) -> float:
    async def stored() -> bool:
        return [conversation] in await stores.sql("SELECT DISTINCT conversation FROM items")

    await wait_until(stored, "the first item to be stored", SCALE_SECONDS)
    return time.monotonic() - began


async def _wait_for_workers(release: Release, count: int) -> None:
    async def counted() -> bool:
        return await release.namespace.replicas(release.object_name("worker")) == count

    await wait_until(counted, f"{count} workers", SCALE_SECONDS)
