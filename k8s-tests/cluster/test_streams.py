"""Pods go while users listen to slow answers: in order, and not."""

import functools

import pytest
from kubernetes.client import V1Pod

from cluster.check import visit
from cluster.images import Images
from cluster.kube import READY_SECONDS, Json, is_ready, metadata, name_of
from cluster.pods import UPSTREAM_URL, start_upstream
from cluster.release import Release
from cluster.streams import listeners
from cluster.telling import figures
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


@pytest.fixture(scope="module")
async def asking(main: Release, images: Images) -> Release:
    """It asks a model provider that takes its time."""
    await start_upstream(main.namespace, images.api)
    await main.become(ASKING)
    return main


async def test_a_rolling_upgrade_under_streams(asking: Release) -> None:
    """Every pod of ours is replaced while users listen; whoever loses a connection resumes, and sees nothing else."""
    before = await _uids(asking)
    async with visit(asking) as town, listeners(town, LISTENERS) as users:
        await wait_until(lambda: users.answered >= LISTENERS, "first answers", ANSWERED_SECONDS)
        await asking.upgrade(ROLLED)
        # The new pods are ready, and the old ones drain: until none is left.
        await wait_until(lambda: _replaced(asking, before), "the old pods to be gone", ANSWERED_SECONDS)
        answered = users.answered
        await wait_until(lambda: users.answered >= answered + LISTENERS, "answers of new pods", ANSWERED_SECONDS)
    assert not users.wrong, users.wrong
    figures["answers streamed during a rolling upgrade"] = f"{users.answered}, {users.resumed} of them resumed"


async def test_api_pods_are_killed_under_streams(asking: Release) -> None:
    """Each answer is heard to its end from another pod, and that is `incomplete` at worst, with what was heard."""
    async with visit(asking) as town, listeners(town, LISTENERS, may_be_cut=True) as users:
        await wait_until(lambda: users.answered >= LISTENERS, "first answers", ANSWERED_SECONDS)
        for pod in await asking.namespace.pods("api", selector=asking.selector):
            await asking.namespace.delete_pod(name_of(pod), grace_seconds=0)
            succeeded = functools.partial(_succeeded, asking, pod)
            await wait_until(succeeded, "its successor", READY_SECONDS)
        # All may have been at one of the pods; when the first goes they are at the second.
        await wait_until(lambda: users.resumed, "a broken stream", ANSWERED_SECONDS)
        answered = users.answered
        await wait_until(lambda: users.answered >= answered + LISTENERS, "answers of new pods", ANSWERED_SECONDS)
    assert not users.wrong, users.wrong
    told = f"{users.answered + users.cut}, {users.resumed} of them resumed, {users.cut} ended as incomplete"
    figures["answers streamed while API pods were killed"] = told


async def _succeeded(release: Release, gone: V1Pod) -> bool:
    deployment = await release.namespace.deployment(release.object_name("api"))
    pods = await release.namespace.pods("api", selector=release.selector)
    ready = [metadata(pod).uid for pod in pods if is_ready(pod)]
    wanted = deployment.spec and deployment.spec.replicas
    return len(ready) == wanted and metadata(gone).uid not in ready


async def _uids(release: Release) -> set[str | None]:
    pods = [*await release.namespace.pods("api"), *await release.namespace.pods("worker")]
    return {metadata(pod).uid for pod in pods}


async def _replaced(release: Release, before: set[str | None]) -> bool:
    return not before & await _uids(release)
