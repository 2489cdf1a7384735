"""A release is upgraded, rolled back, removed and installed again, with users in it where there can be any."""

import pytest
from helm_python import HelmError

from cluster.check import visit
from cluster.kube import READY_SECONDS, Json, identities, is_ready
from cluster.release import Release
from cluster.town import Town
from tests.chaos.acts import append, begin_talk
from tests.chaos.said import Talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio
STORES = ("redis", "postgresql")
# Long enough that the old pods are gone.
HOPELESS_SECONDS = 10


async def said_before(town: Town) -> Talk:
    """A conversation of a few items, to be looked at after whatever comes."""
    talk = await begin_talk(town, town.door)
    assert await append(town, town.door, talk) == 200
    return talk


async def test_an_upgrade_without_a_change_restarts_nothing(main: Release) -> None:
    """Nor does it make other secrets."""
    async with visit(main) as town:
        await said_before(town)
        pods, secret = await _running(main), await main.namespace.secret(main.full_name)
        await main.upgrade(main.changes or {})
        assert await _running(main) == pods
        assert await main.namespace.secret(main.full_name) == secret


async def _running(release: Release) -> set[tuple[str | None, int]]:
    """All but the migration, which may just be about to end."""
    components = [await release.namespace.pods(one) for one in ("api", "worker", *STORES)]
    return identities([pod for pods in components for pod in pods])


async def test_a_rollback(main: Release) -> None:
    """To the settings before, with what was said since."""
    await main.become({})
    async with visit(main) as town:
        await said_before(town)
        await main.upgrade({"logLevel": "DEBUG"})
        assert "DEBUG" in await _settings(main)
        await said_before(town)
        await main.rollback()
        main.changes = {}
        assert "DEBUG" not in await _settings(main)


async def test_a_rollback_from_stores_that_do_not_start(main: Release) -> None:
    """Kubernetes alone would wait for ever for the pods with the image that is not there."""
    await main.become({})
    async with visit(main) as town:
        talk = await said_before(town)
        town.redis_shaken = True
        missing: Json = {"image": {"tag": "not-there"}}
        with pytest.raises(HelmError):
            await main.upgrade({"redis": missing, "postgresql": missing}, HOPELESS_SECONDS)
        await main.rollback()
        main.changes = {}
        assert await append(town, town.door, talk) == 200


async def _settings(release: Release) -> list[str | None]:
    """Values in the environment of the pods that serve."""
    pods = [*await release.namespace.pods("api"), *await release.namespace.pods("worker")]
    containers = [container for pod in pods if pod.spec and is_ready(pod) for container in pod.spec.containers]
    return [variable.value for container in containers for variable in container.env or []]


async def test_a_larger_volume_restarts_no_store(main: Release) -> None:
    """As docs/kubernetes.md tells; whether a claim can grow is the StorageClass's affair."""
    await main.become({})
    async with visit(main) as town:
        talk = await said_before(town)
        pods = await _running(main)
        try:
            await _made_again(main, {store: {"persistence": {"size": "11Gi"}} for store in STORES})
            assert await _running(main) == pods
        finally:
            await _made_again(main, {})
        assert await _running(main) == pods
        assert await append(town, town.door, talk) == 200


async def _made_again(release: Release, changes: Json) -> None:
    """Upgraded, with StatefulSets that are made anew around their pods."""
    for store in STORES:
        await release.namespace.orphan_stateful_set(release.object_name(store))
    await release.upgrade(changes)


async def test_what_is_missing_in_the_secret_is_made_anew(main: Release) -> None:
    """How a key and Redis's password are changed: users are served with the new ones."""
    await main.become({})
    before, changed = await main.namespace.secret(main.full_name), {"api-key", "redis-password"}
    await main.namespace.drop_from_secret(main.full_name, *changed)
    await main.upgrade({})
    after = await main.namespace.secret(main.full_name)
    assert {key for key in before if before[key] != after[key]} == changed
    async with visit(main) as town:
        await said_before(town)


async def test_a_release_comes_back_on_its_old_volumes(main: Release) -> None:
    """Uninstalled and installed again under its name, with the passwords and the data that it had."""
    await main.become({})
    secret = await main.namespace.secret(main.full_name)
    async with visit(main) as town:
        talk = await said_before(town)
        await main.uninstall()
        # Helm does not wait for pods that drain, and users of the new Service would be sent to them too.
        await wait_until(lambda: _nobody_is_left(main), "the old pods to be gone", READY_SECONDS)
        await main.install()
        assert await main.namespace.secret(main.full_name) == secret
        # Its Service may have got another port.
        await town.move(await main.url())
        assert await append(town, town.door, talk) == 200


async def _nobody_is_left(release: Release) -> bool:
    return not await release.namespace.pods(selector=release.selector)
