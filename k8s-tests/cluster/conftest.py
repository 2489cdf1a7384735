"""Fixtures: images, namespaces that go with the tests, and the release that most of them share."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import pytest

from cluster.check import answer_of
from cluster.images import Images, find_images
from cluster.kube import Namespace
from cluster.release import Release, basic_values
from cluster.telling import account, figures, measured, watched
from cluster.town import town_of

NewNamespace = Callable[[str], Awaitable[Namespace]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def images() -> Images:
    assert os.environ.get("KUBECONFIG"), "set KUBECONFIG: these tests write to the cluster that it names"
    return find_images()


@pytest.fixture(scope="session")
async def new_namespace(anyio_backend: str, images: Images) -> AsyncIterator[NewNamespace]:  # noqa: ARG001 - one event loop for all
    """`await new_namespace("main")` makes one that enforces restricted pods and is deleted after the last test."""
    session = secrets.token_hex(2)

    async def make(purpose: str) -> Namespace:
        namespace = Namespace(f"cluster-test-{session}-{purpose}")
        watched.append(namespace)
        await namespace.create()
        return namespace

    yield make
    # Nobody waits for their end, which takes most of a minute: no two have one name.
    for namespace in watched:
        await namespace.delete()


@pytest.fixture(scope="session")
async def main(new_namespace: NewNamespace, images: Images) -> Release:
    """The release that most tests share, as the chart's defaults have it; each module says with `become` how it wants
    it."""
    release = Release(await new_namespace("main"), "chatbot", basic_values(images))
    began = time.monotonic()
    await release.install()
    measured("`helm install --wait`, images there", time.monotonic() - began)
    async with town_of(release) as town:
        await answer_of(town)
    measured("from `helm install` to the first answered chat", time.monotonic() - began)
    return release


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the cluster beside a failure."""
    report = yield
    if report.failed:
        report.sections += [part for namespace in watched for part in account(namespace)]
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was measured, for the table in docs/kubernetes.md."""
    if figures:
        terminalreporter.section("measured")
        for what, figure in figures.items():
            terminalreporter.write_line(f"{what}: {figure}")
