"""Fixtures: real Valkey and PostgreSQL, and the service's processes on them."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.fake_upstream import fake_upstream_in
from tests.running import Folder, Part, Postgres, Service, postgres_in, service_on, valkey_in

StartService = Callable[..., Awaitable[Service]]
LOG_LINES = 60
running: list[Service] = []


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A short path for servers' data, gone at the end."""
    made = Folder()
    yield made.path
    made.remove()


@pytest.fixture(scope="session")
async def postgres(anyio_backend: str, folder: Path) -> AsyncIterator[Postgres]:  # noqa: ARG001 - one event loop for all
    """PostgreSQL, one for all tests; who kills it starts it again."""
    server = postgres_in(folder)
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> str:
    """The name of an empty database of this module's own (`service` migrates it)."""
    return await postgres.new_database()


@pytest.fixture(scope="module")
async def valkey(anyio_backend: str) -> AsyncIterator[Part]:  # noqa: ARG001 - one event loop for all
    """A Valkey of this module's own, with the settings of production; who kills it starts it again."""
    own = Folder()
    server = valkey_in(own.path)
    await server.start()
    yield server
    await server.close()
    own.remove()


@pytest.fixture(scope="module")
async def start_service(
    valkey: Part, postgres: Postgres, database: str, folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[StartService]:
    """`await start_service(MODEL="echo", …)` starts an API and a worker, waits for both, ends them with the module.

    `worker=False` leaves the worker for the test to start.
    """
    started: list[Service] = []
    numbers = itertools.count()

    async def start(*, worker: bool = True, **settings: str) -> Service:
        logs = folder / f"{request.module.__name__.rpartition('.')[2]}-{next(numbers)}"
        service = service_on(valkey, postgres, database, logs, **settings)
        started.append(service)
        running.append(service)
        await service.start(worker=worker)
        return service

    yield start
    for service in started:
        await service.close()
        running.remove(service)


@pytest.fixture(scope="module")
async def service(start_service: StartService) -> Service:
    """An API and a worker with the built-in model."""
    return await start_service(MODEL="echo")


@pytest.fixture(scope="module")
async def upstream(anyio_backend: str, folder: Path) -> AsyncIterator[Part]:  # noqa: ARG001 - one event loop for all
    """A model provider of this module's own, tests/fake_upstream.py, at /v1."""
    server = fake_upstream_in(folder / "upstream")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def asking_service(start_service: StartService, upstream: Part) -> Service:
    """An API and a worker that ask the fake upstream; without a model named, it answers what it was sent."""
    return await start_service(OPENAI_BASE_URL=f"http://{upstream.host}:{upstream.port}/v1", MODEL="fake-history")


@pytest.fixture(scope="module")
async def lagging(start_service: StartService) -> Service:
    """A service whose worker each test starts when it wants PostgreSQL to have anything."""
    return await start_service(MODEL="echo", worker=False)


@pytest.fixture(scope="module")
async def lagging_too(start_service: StartService, lagging: Service) -> Service:  # noqa: ARG001 - it has migrated
    """A second API process on the same stores."""
    return await start_service(MODEL="echo", worker=False)


@pytest.fixture
async def redis(valkey: Part) -> AsyncIterator[Redis]:
    async with Redis(host=valkey.host, port=valkey.port) as client:
        yield client


@pytest.fixture
async def connection(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    client = await asyncpg.connect(host=postgres.host, port=postgres.port, user=postgres.user, database=database)
    yield client
    await client.close(timeout=5)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the processes' logs beside a failure."""
    report = yield
    if report.failed:
        for service in running:
            for log in sorted(service.logs.glob("*.log")):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
                report.sections.append((str(log), "\n".join(lines)))
    return report
