"""A Redis that would lose what it acknowledges is refused by name, unless the operator accepts it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from local.parts import ROOT, migrate
from tests.conftest import StartService
from tests.running import Part, Postgres, service_on
from tests.talking import talk

pytestmark = pytest.mark.anyio

VERIFIED = "chatbot_redis_durability_verified"
EXIT_SECONDS = 20
WRONG = {"appendfsync": "everysec", "maxmemory": "0", "maxmemory-policy": "allkeys-lru"}


@pytest.fixture
async def changed(redis: Redis) -> AsyncIterator[Redis]:
    """Redis whose settings a test may change."""
    before = {name: str((await redis.config_get(name))[name]) for name in WRONG}
    yield redis
    for name, value in before.items():
        await redis.config_set(name, value)


@pytest.mark.parametrize("module", ["api", "worker"])
async def test_wrong_settings_are_refused_by_name(
    module: str, valkey: Part, postgres: Postgres, database: str, folder: Path, changed: Redis
) -> None:
    service = service_on(valkey, postgres, database, folder / f"refused-{module}")
    await migrate(service.environment, service.logs)
    for name, value in WRONG.items():
        await changed.config_set(name, value)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=service.environment, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(EXIT_SECONDS):
            _, output = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 2
    for told in ("appendfsync is 'everysec', set it to 'always'", "maxmemory is '0'", "policy is 'allkeys-lru'"):
        assert told in output.decode()


async def verified(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        text = await answer.text()
    return next(line for line in text.splitlines() if line.startswith(VERIFIED)).partition(" ")[2]


async def test_everysec_accepted(start_service: StartService, changed: Redis) -> None:
    await changed.config_set("appendfsync", "everysec")
    service = await start_service(REDIS_APPENDFSYNC="everysec")
    async with talk(service) as client:
        assert (await client.responses.create(input="hello")).output_text == "hello"
    assert await verified(service.metrics_url) == "0.0"


async def test_a_redis_that_tells_nothing(start_service: StartService, redis: Redis) -> None:
    """As with managed services, where CONFIG is denied: it works, and says that it could not look."""
    await redis.acl_setuser("tenant", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-config"])
    service = await start_service(REDIS_USERNAME="tenant", REDIS_PASSWORD="secret")  # noqa: S106
    async with talk(service) as client:
        assert (await client.responses.create(input="hello")).output_text == "hello"
    assert await verified(service.metrics_url) == "0.0"
    for part in (service.api, service.worker):
        assert part.log_text().count("durability not verified") == 1


async def test_the_right_settings(start_service: StartService) -> None:
    service = await start_service()
    assert await verified(service.metrics_url) == "1.0"
