"""A release is upgraded, rolled back, removed and installed again, with users in it where there can be any."""

import pytest

from cluster.check import visit
from cluster.images import Images
from cluster.kube import Json, identities, is_ready, metadata
from cluster.pods import UPSTREAM_URL, start_upstream
from cluster.release import Release
from cluster.streams import listeners
from cluster.telling import figures
from cluster.town import Town
from tests.chaos.acts import append, begin_talk
from tests.chaos.said import Talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

LISTENERS = 6
ANSWERED_SECONDS = 60.0
# Egress to it must be let through: policies see the port of the pod.
ASKING: Json = {"api": {"upstream": {"baseUrl": UPSTREAM_URL, "model": "quick", "apiKey": "nobody-asks"}}}
# What `kubectl rollout restart` does.
ROLLED: Json = {
    "api": {**ASKING["api"], "podAnnotations": {"example.org/rolled": "1"}},
    "worker": {"podAnnotations": {"example.org/rolled": "1"}},
}


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
        await main.upgrade(main.changes)
        assert await _running(main) == pods
        assert await main.namespace.secret(main.full_name) == secret


async def _running(release: Release) -> set[tuple[str | None, int]]:
    """All but the migration, which may just be about to end."""
    components = [await release.namespace.pods(one) for one in ("api", "worker", "redis", "postgresql")]
    return identities([pod for pods in components for pod in pods])


async def test_a_rolling_upgrade_under_streams(main: Release, images: Images) -> None:
    """Every pod of ours is replaced while users listen; whoever loses a connection resumes, and sees nothing else."""
    await start_upstream(main.namespace, images.api)
    await main.become(ASKING)
    before = await _uids(main)
    async with visit(main) as town, listeners(town, LISTENERS) as users:
        await wait_until(lambda: users.answered >= LISTENERS, "first answers", ANSWERED_SECONDS)
        await main.upgrade(ROLLED)
        # The new pods are ready, and the old ones drain: until none is left.
        await wait_until(lambda: _replaced(main, before), "the old pods to be gone", ANSWERED_SECONDS)
        answered = users.answered
        await wait_until(lambda: users.answered >= answered + LISTENERS, "answers of new pods", ANSWERED_SECONDS)
    assert not users.wrong, users.wrong
    figures["answers streamed during a rolling upgrade"] = f"{users.answered}, {users.resumed} of them resumed"


async def _uids(release: Release) -> set[str | None]:
    pods = [*await release.namespace.pods("api"), *await release.namespace.pods("worker")]
    return {metadata(pod).uid for pod in pods}


async def _replaced(release: Release, before: set[str | None]) -> bool:
    return not before & await _uids(release)


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


async def _settings(release: Release) -> list[str | None]:
    """Values in the environment of the pods that serve."""
    pods = [*await release.namespace.pods("api"), *await release.namespace.pods("worker")]
    containers = [container for pod in pods if pod.spec and is_ready(pod) for container in pod.spec.containers]
    return [variable.value for container in containers for variable in container.env or []]


async def test_a_release_comes_back_on_its_old_volumes(main: Release) -> None:
    """Uninstalled and installed again under its name, with the passwords and the data that it had."""
    await main.become({})
    secret = await main.namespace.secret(main.full_name)
    async with visit(main) as town:
        talk = await said_before(town)
        await main.uninstall()
        await main.install()
        assert await main.namespace.secret(main.full_name) == secret
        # Its Service may have got another port.
        town.move(await main.url())
        assert await append(town, town.door, talk) == 200
