"""Pods and stores go while users talk: nothing that was acknowledged goes with them."""

import pytest

from cluster.check import bundled_stores, visit
from cluster.kube import metadata, name_of
from cluster.release import Release
from cluster.telling import figures
from tests.chaos.users import load

pytestmark = pytest.mark.anyio

USERS = 6
# Some hundred items in a second: what a scenario brings is stored and read again in as many seconds.
REST_SECONDS = 0.2
ITEMS = 500
TWO_PODS = {"api": {"replicas": 2}, "worker": {"replicas": 2}}


@pytest.fixture
async def paired(main: Release) -> Release:
    """Two pods of each of our processes, so that one is left."""
    await main.become(TWO_PODS)
    return main


async def test_the_queue_holds_what_is_said_while_postgresql_is_away(main: Release) -> None:
    stores = await bundled_stores(main)
    async with visit(main) as town:
        await main.namespace.scale_stateful_set(main.object_name("postgresql"), 0)
        async with load(town, town.door, users=USERS) as users:
            await users.reach(3 * ITEMS)
        assert not town.ledger.refused
        assert await stores.depth() > town.ledger.acknowledged
        await main.namespace.scale_stateful_set(main.object_name("postgresql"), 1)


@pytest.mark.parametrize("component", ["api", "worker"])
async def test_pods_are_killed_under_load(paired: Release, component: str) -> None:
    """One after the other, twice round, each while its successor starts."""
    async with visit(paired) as town, load(town, town.door, users=USERS, rest_seconds=REST_SECONDS) as users:
        for _ in range(4):
            await users.more(ITEMS // 2)
            pods = await paired.namespace.pods(component, selector=paired.selector)
            oldest = min(pods, key=lambda pod: str(metadata(pod).creation_timestamp))
            await paired.namespace.delete_pod(name_of(oldest), grace_seconds=0)
        await users.more(ITEMS)
        figures[f"items acknowledged while {component} pods were killed"] = str(town.ledger.acknowledged)


@pytest.mark.parametrize("component", ["redis", "postgresql"])
async def test_a_stores_pod_is_deleted_under_load(paired: Release, component: str) -> None:
    """It comes back on its volume, with what it had."""
    async with visit(paired) as town, load(town, town.door, users=USERS, rest_seconds=REST_SECONDS) as users:
        await users.more(ITEMS)
        town.redis_shaken = component == "redis"
        await _replace(paired, component)
        await users.more(ITEMS)


async def _replace(release: Release, component: str) -> None:
    name = f"{release.object_name(component)}-0"
    before = await release.namespace.ready_pod(name)
    await release.namespace.delete_pod(name)
    await release.namespace.ready_pod(name, other_than=metadata(before).uid)
