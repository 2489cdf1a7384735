"""TLS to Redis and PostgreSQL: what the processes do over it, and in which words they refuse a server."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from core.settings import Environment, SettingsError
from local.parts import spawn_module
from tests.running import Folder, Part, Postgres, Service, run_worker, service_on
from tests.talking import talk
from tests.tls_servers import (
    DATABASE,
    POSTGRES,
    REDIS,
    Authority,
    authority,
    certify,
    postgres_with_tls,
    redis_with_tls,
)
from tests.waiting import wait_until
from worker.settings import read

needs_servers = pytest.mark.skipif(REDIS is None or POSTGRES is None, reason="no Debian redis-server and postgresql")


@dataclass(frozen=True)
class Stores:
    redis: Part
    postgres: Postgres
    ours: Authority
    others: Authority
    folder: Path
    numbers: "itertools.count[int]"

    def service(self, **settings: str) -> Service:
        """It checks both stores against the right authority, unless told otherwise."""
        checked = {
            "REDIS_TLS": "true",
            "REDIS_TLS_CA_FILE": str(self.ours.file),
            "PG_TLS": "verify-full",
            "PG_TLS_CA": self.ours.file.read_text(),
        }
        logs = self.folder / f"logs-{next(self.numbers)}"
        return service_on(self.redis, self.postgres, DATABASE, logs, **{**checked, "MODEL": "echo", **settings})

    def client(self) -> Redis:
        host, port = self.redis.host, self.redis.port
        return Redis(host=host, port=port, ssl=True, ssl_ca_certs=str(self.ours.file))


@pytest.fixture(scope="module")
async def stores(anyio_backend: str) -> AsyncIterator[Stores]:  # noqa: ARG001 - one event loop for all
    folder = Folder()
    ours, others = authority(folder.path, "ours"), authority(folder.path, "others")
    files = certify(ours, folder.path)
    redis, postgres = redis_with_tls(folder.path, *files), postgres_with_tls(folder.path, *files)
    try:
        await asyncio.gather(redis.start(), postgres.start())
        yield Stores(redis, postgres, ours, others, folder.path, itertools.count())
    finally:
        for part in (redis, postgres):
            await part.close()
        folder.remove()


@pytest.fixture
async def start(stores: Stores) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    """Start processes without waiting for more than /livez, since a refused store makes no ready worker."""
    async with AsyncExitStack() as stack:

        async def some(*modules: str, **settings: str) -> Service:
            service = stores.service(**settings)
            for module in modules:
                child = await spawn_module(module, service.environment, service.logs)
                stack.push_async_callback(child.stop, 10)
            return service

        yield some


async def text_of(url: str) -> str:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(url) as answer:
                return await answer.text()
        except OSError:
            return ""


def _says(log: Path, text: str) -> bool:
    return log.exists() and text in log.read_text()


async def reads(url: str, *texts: str) -> None:
    async def all_are_there() -> bool:
        found = await text_of(url)
        return all(text in found for text in texts)

    await wait_until(all_are_there, f"{texts} at {url}")


async def test_a_chat_with_both_stores_behind_tls(stores: Stores) -> None:
    service = stores.service()
    try:
        await service.start()
        async with talk(service) as client:
            conversation = (await client.conversations.create()).id
            for text in ("one", "two"):
                answer = await client.responses.create(conversation=conversation, input=text)
                assert answer.output_text == text
        context = ssl.create_default_context(cafile=stores.ours.file)
        postgres = await asyncpg.connect(
            host=stores.postgres.host, port=stores.postgres.port, user="chatbot", database=DATABASE, ssl=context
        )

        async def stored() -> bool:
            items = await postgres.fetchval("SELECT count(*) FROM items WHERE conversation = $1", conversation)
            return bool(items == 4)

        await wait_until(stored, "all that was said is stored")
        await postgres.close()
        async with stores.client() as redis:
            clients = await redis.client_list()
        assert len(clients) > 2
        assert {client["laddr"] for client in clients} == {f"{stores.redis.host}:{stores.redis.port}"}
        assert (await run_worker(service.environment, "queue", "status"))[0] == 0
        assert '"missing":[]' in await text_of(f"{service.url.removesuffix('/v1')}/readyz")
    finally:
        await service.close()


async def test_encrypted_to_whoever_answers(stores: Stores) -> None:
    assert (await run_worker(stores.service(PG_TLS="require", PG_TLS_CA="").environment, "migrate")) == (0, "", "")


async def test_an_unknown_authority_is_refused_in_words(
    stores: Stores, start: Callable[..., Awaitable[Service]]
) -> None:
    others = {"REDIS_TLS_CA_FILE": str(stores.others.file), "PG_TLS_CA": stores.others.file.read_text()}
    service = await start("api", "worker", **others)
    told = "its certificate is refused: unable to get local issuer certificate"
    api = f"{service.url.removesuffix('/v1')}/readyz"
    await reads(api, f"redis can't be reached ({told})", f"postgresql can't be reached ({told})")
    for name in ("api", "worker"):
        log = service.logs / f"{name}.log"
        await wait_until(partial(_says, log, told), f"{name} says why it waits")
        assert log.read_text().count('"message":"waiting for redis"') == 1, "said once"
    status, _, errors = await run_worker(service.environment, "migrate")
    assert (status, errors.startswith(told)) == (1, True)


async def test_another_name_is_refused_in_words(start: Callable[..., Awaitable[Service]]) -> None:
    service = await start("api", REDIS_HOST="localhost")
    told = "its certificate is refused: Hostname mismatch, certificate is not valid for 'localhost'"
    await reads(f"{service.url.removesuffix('/v1')}/readyz", f"redis can't be reached ({told}")


async def test_a_server_without_tls_is_told(postgres: Postgres, stores: Stores) -> None:
    status, _, errors = await run_worker(stores.service(PG_PORT=str(postgres.port)).environment, "migrate")
    assert (status, errors.startswith("it does not speak TLS")) == (1, True)


async def test_what_is_no_tls_at_all_is_told(stores: Stores, upstream: Part) -> None:
    """A wrong port, behind which somebody speaks HTTP."""
    status, _, errors = await run_worker(stores.service(REDIS_PORT=str(upstream.port)).environment, "queue", "status")
    assert (status, errors.startswith("redis can't be reached (TLS failed: ")) == (1, True), errors


async def test_a_server_that_wants_tls_says_so(stores: Stores) -> None:
    service = stores.service(PG_TLS="", PG_TLS_CA="")
    status, _, errors = await run_worker(service.environment, "migrate")
    assert status == 1
    assert "no encryption" in errors


for needing in (
    test_a_chat_with_both_stores_behind_tls,
    test_encrypted_to_whoever_answers,
    test_an_unknown_authority_is_refused_in_words,
    test_another_name_is_refused_in_words,
    test_a_server_without_tls_is_told,
    test_what_is_no_tls_at_all_is_told,
    test_a_server_that_wants_tls_says_so,
):
    needs_servers(needing)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"REDIS_TLS": "true", "REDIS_TLS_CA": "secret"}, "REDIS_TLS_CA is wrong: no certificate in PEM form"),
        ({"PG_TLS": "verify-full", "PG_TLS_CA": "sécret"}, "PG_TLS_CA is wrong: no certificate in PEM form"),
        ({"REDIS_TLS_CA": "secret"}, "REDIS_TLS_CA is set without REDIS_TLS=true"),
        ({"PG_TLS": "require", "PG_TLS_CA": "secret"}, "PG_TLS_CA is set with PG_TLS=require"),
        ({"PG_TLS_CA": "secret"}, "PG_TLS_CA is set with PG_TLS=disable"),
        ({"PG_TLS": "verify"}, "PG_TLS='verify' must be one of disable, require, verify-full"),
        ({"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": "/nowhere"}, "REDIS_TLS_CA_FILE=/nowhere can't be read"),
    ],
)
def test_wrong_settings_are_told_at_the_start(settings: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(Environment(settings))
    assert len(str(error.value).splitlines()) == 1
    assert told in str(error.value)
    assert "cret" not in str(error.value)
