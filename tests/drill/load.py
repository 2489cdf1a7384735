"""Clients that do a little of everything, over and over, so that every panel has something to show."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from tests.running import Part, Service

Json = dict[str, Any]
WHOLE = aiohttp.ClientTimeout(total=20)
PAUSE_SECONDS = 0.2
KEYS = {"acme": "acme-key", "tight": "tight-key"}
# What fails for one reason or another, and is asked of another provider, again, or not at all.
MODELS = ("fake", "ill", "dead", "passing")


# URL stands for the address of the provider.
ONE_PROVIDER = """
[providers.only]
base_url = "URL"
retries = 0
breaker_failures = 3
breaker_open_seconds = 1
[models."*"]
targets = [{ provider = "only" }]
"""
TWO_PROVIDERS = """
[providers.first]
base_url = "URL"
[providers.second]
base_url = "URL"
[models.fake]
targets = [{ provider = "second" }]
[models.ill]
targets = [{ provider = "first", model = "fake-500" }, { provider = "second", model = "fake" }]
[models.dead]
targets = [{ provider = "first", model = "fake-500" }]
[models.passing]
targets = [{ provider = "second", model = "fake-500-then-ok" }]
"""


def one_provider(folder: Path, upstream: Part, **more: str) -> dict[str, str]:
    """Settings with one provider that knows every model, and a breaker that is quick to open and to try."""
    return {**_upstreams(folder, upstream, ONE_PROVIDER), "MODEL": "fake", **more}


def two_providers(folder: Path, upstream: Part) -> dict[str, str]:
    """Settings with two tenants, one of them limited, and two providers, of which the first fails."""
    keys = [
        f'[[keys]]\ntenant = "{tenant}"\nname = "load"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"'
        for tenant, key in KEYS.items()
    ]
    settings = _upstreams(folder, upstream, TWO_PROVIDERS)
    file = folder / "keys.toml"
    file.write_text("\n".join([*keys, "[tenants.tight]\nrequests_per_minute = 2"]), encoding="utf-8")
    return {**settings, "KEYS_FILE": str(file), "AUTH": ""}


def _upstreams(folder: Path, upstream: Part, text: str) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "upstreams.toml"
    file.write_text(text.replace("URL", f"http://{upstream.host}:{upstream.port}/v1"), encoding="utf-8")
    return {"UPSTREAMS_FILE": str(file), "LOG_LEVEL": "WARNING"}


class Client:
    """One tenant's requests; whatever comes back is read to its end."""

    def __init__(self, service: Service, http: aiohttp.ClientSession, tenant: str = "") -> None:
        self._url = service.url
        self._http = http
        self._headers = {"Authorization": f"Bearer {KEYS[tenant]}"} if tenant else {}

    async def post(self, path: str, body: Json, **headers: str) -> Json:
        """The answer; {} when it is a stream, or the service is away."""
        try:
            async with self._http.post(self._url + path, json=body, headers={**self._headers, **headers}) as answer:
                if answer.content_type != "application/json":
                    await answer.read()
                    return {}
                told: Json = await answer.json()
                return told
        except (aiohttp.ClientError, TimeoutError):
            return {}

    async def turn(self, **body: object) -> Json:
        return await self.post("/responses", {"input": "hello", **body})

    async def conversation(self) -> str:
        return str((await self.post("/conversations", {})).get("id", ""))


@asynccontextmanager
async def client_of(service: Service, tenant: str = "") -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(timeout=WHOLE) as http:
        yield Client(service, http, tenant)


@asynccontextmanager
async def repeating(act: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do it over and over, with a pause between, for as long as the context lasts; the last one is waited for."""
    stop = asyncio.Event()

    async def repeat() -> None:
        while not stop.is_set():
            await act()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE_SECONDS)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def everything(service: Service, redis: Redis) -> AsyncIterator[None]:
    """All that the dashboards tell of, as small as it can be."""
    async with client_of(service, "acme") as acme, client_of(service, "tight") as tight:
        numbers = iter(range(1_000_000))

        async def once() -> None:
            number = next(numbers)
            name = await acme.conversation()
            await acme.turn(conversation=name)
            # Redis evicts it: its next turn is loaded from PostgreSQL.
            await redis.delete(f"conv:acme:{name}", f"items:acme:{name}")
            asked = [acme.turn(model=model, stream=model == "fake") for model in MODELS]
            # The second one at the same time finds the conversation locked.
            asked += [acme.turn(conversation=name, stream=True, model="fake") for _ in range(2)]
            asked += [acme.post("/responses", {"input": "again"}, **{"Idempotency-Key": "load"}), tight.turn()]
            asked += [acme.turn(stream=True, model="fake", input=f"{number}")]
            await asyncio.gather(*asked)

        async with repeating(once):
            yield
