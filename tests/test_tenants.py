"""API keys from a file: whose they are, what they may do, and how they change while the service runs."""

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from openai import AuthenticationError, NotFoundError, PermissionDeniedError
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from api.tenants import KeysFileError, read_keys
from local.parts import ROOT
from tests.conftest import StartService
from tests.running import Service
from tests.talking import talk
from tests.test_api_process import refused_start
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


def block(tenant: str, key: str, *scopes: str) -> str:
    """What a keys file says of a key that has its tenant's name in it."""
    said = f'[[keys]]\ntenant = "{tenant}"\nname = "{key}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
    return said + (f"scopes = {list(scopes)}\n" if scopes else "")


BEFORE = block("acme", "acme-key") + block("acme", "acme-old") + block("acme", "acme-reads", "read")
BEFORE += block("acme", "acme-writes", "write") + block("beta", "beta-key")


@pytest.fixture(scope="module")
def secret(folder: Path) -> Path:
    """A mounted Secret: the file is a link through `..data`, which is swapped."""
    mounted = folder / "secret"
    mounted.mkdir()
    swap(mounted, "first", BEFORE)
    (mounted / "keys.toml").symlink_to("..data/keys.toml")
    return mounted


def swap(mounted: Path, version: str, text: str) -> None:
    (mounted / version).mkdir()
    (mounted / version / "keys.toml").write_text(text)
    (mounted / "..new").symlink_to(version)
    (mounted / "..new").rename(mounted / "..data")


@pytest.fixture(scope="module")
async def tenants(start_service: StartService, secret: Path) -> Service:
    return await start_service(AUTH="", KEYS_FILE=str(secret / "keys.toml"), MODEL="echo", LOG_LEVEL="INFO")


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def test_each_key_opens_its_tenant(tenants: Service, redis: Redis) -> None:
    async with talk(tenants, "acme-key") as acme, talk(tenants, "acme-old") as other, talk(tenants, "beta-key") as beta:
        conversation = await acme.conversations.create()
        response = await acme.responses.create(input="whose?", conversation=conversation.id)
        assert (await other.responses.retrieve(response.id)).output_text == "whose?"
        with pytest.raises(NotFoundError):
            await beta.responses.retrieve(response.id)
        own = await beta.responses.create(input="mine")
    names = {key.decode() async for key in redis.scan_iter("resp:*")}
    assert names == {f"resp:acme:{response.id}", f"resp:beta:{own.id}"}


async def test_a_key_may_do_what_its_scopes_say(tenants: Service) -> None:
    async with talk(tenants, "acme-reads") as reader, talk(tenants, "acme-writes") as writer:
        conversation = await writer.conversations.create()
        assert await reader.conversations.retrieve(conversation.id) == conversation
        assert (await reader.responses.input_tokens.count(input="x")).input_tokens
        for refused in (
            reader.conversations.create(),
            reader.responses.create(input="x"),
            reader.conversations.delete(conversation.id),
            writer.conversations.retrieve(conversation.id),
            writer.models.list(),
        ):
            with pytest.raises(PermissionDeniedError) as told:
                await refused
            assert told.value.code == "insufficient_scope"
        assert await reader.conversations.retrieve(conversation.id) == conversation


async def test_the_file_is_read_again_when_it_changes(
    tenants: Service, secret: Path, http: aiohttp.ClientSession
) -> None:
    async def works(key: str) -> bool:
        async with talk(tenants, key) as client:
            try:
                await client.models.list()
            except AuthenticationError:
                return False
        return True

    async def sound() -> str:
        async with http.get(tenants.metrics_url) as answer:
            lines = (await answer.text()).splitlines()
        return next(line.split()[1] for line in lines if line.startswith("chatbot_keys_file_sound "))

    async def wrong() -> bool:
        return await sound() == "0.0"

    assert await works("acme-old")
    swap(secret, "broken", 'sk-a-plain-key = "put here by mistake')
    await wait_until(wrong, "the service sees that the file is wrong")
    assert await works("acme-old"), "the keys of before stay"
    assert "the keys file is wrong" in tenants.api.log_text()
    assert "sk-a-plain-key" not in tenants.api.log_text()

    async def renewed() -> bool:
        return await works("acme-new")

    url = f"{tenants.url.replace('http', 'ws')}/responses"
    async with connect(url, additional_headers={"Authorization": "Bearer acme-old"}) as opened_before:
        swap(secret, "second", BEFORE.replace(block("acme", "acme-old"), block("acme", "acme-new")))
        await wait_until(renewed, "the new key")
        await opened_before.send('{"type":"response.create","input":"too late"}')
        assert orjson.loads(await opened_before.recv())["error"]["code"] == "invalid_api_key"
    assert not await works("acme-old")
    assert await works("beta-key")
    assert await sound() == "1.0"
    async with http.get(tenants.metrics_url) as answer:
        assert 'chatbot_tenant_requests_total{key="acme-new",tenant="acme"}' in await answer.text()


def keys(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "api", "keys", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, input=given, timeout=30)


async def test_keys_are_made(tenants: Service, secret: Path) -> None:
    made = keys("new", "gamma", "laptop")
    key = made.stderr.strip()
    assert (made.returncode, key[:3], key in made.stdout) == (0, "sk-", False)
    assert keys("hash", "gamma", "laptop", given=f"{key}\n").stdout == made.stdout
    swap(secret, "third", BEFORE + made.stdout)

    async def opens() -> bool:
        async with talk(tenants, key) as client:
            try:
                return bool(await client.models.list())
            except AuthenticationError:
                return False

    await wait_until(opens, "the key that was made")


def test_no_key_for_what_is_no_name() -> None:
    refused = keys("new", "two words", "x")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "tenant: 1 to 64 letters, digits, '-' and '_'\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'keys': Field required"),
        ("keys = []", "'keys': List should have at least 1 item after validation, not 0"),
        ('key = "sk-secret"', "'keys': Field required"),
        ("sk-secret", "it is not TOML"),
        ("\udcff", "it is not TOML"),
        (block("a:b", "sk-secret"), "'keys.0.tenant': String should match pattern '^[A-Za-z0-9_-]+$'"),
        (block("a" * 65, "x"), "'keys.0.tenant': String should have at most 64 characters"),
        (block("a", "x", "all"), "'keys.0.scopes.0': Input should be 'read' or 'write'"),
        (block("a", "x") + 'key = "sk-secret"', "'keys.0.key': Extra inputs are not permitted"),
        (block("a", "x") + block("b", "x"), "two of its keys are the same, or have the same name"),
        (block("a", "x") + "[tenants.b]", "one of its tenants has limits, but no key"),
        (
            block("a", "x") + "[tenants.a]\nrequests_per_minute = 0",
            "'tenants.a.requests_per_minute': Input should be greater than or equal to 1",
        ),
        (block("a", "x") + "[tenants.a]\nper_hour = 1", "'tenants.a.per_hour': Extra inputs are not permitted"),
        (block("a", "x").replace("sha256 = ", "sha256 = 's"), "it is not TOML"),
    ],
)
def test_a_wrong_file_is_told_in_words(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(KeysFileError) as told:
        read_keys(file)
    assert str(told.value) == why


def test_no_start_without_the_file(tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    said = refused_start(KEYS_FILE=str(file), API_KEY="x")
    assert said == (
        "settings are wrong:\n  API_KEY and KEYS_FILE are set together: set one of them\n"
        f"  KEYS_FILE={file} is wrong: it can't be read: FileNotFoundError\n"
    )
