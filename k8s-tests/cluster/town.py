"""Users of a release: they talk through its Service, and a ledger keeps what they were told (tests/chaos)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import orjson
from openai import AsyncOpenAI

from cluster.release import Release
from tests.chaos.said import Ledger
from tests.chaos.scene import Address, Json
from tests.waiting import wait_until

# Longer than any answer here takes: who waits so long has been forgotten.
REQUEST_SECONDS = 60.0
OPEN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Door:
    """The Service of the API; which pod answers is its affair."""

    url: str


@dataclass
class Town:
    """A scene of the fault campaign that is a release in a cluster."""

    release: Release
    door: Door
    http: aiohttp.ClientSession
    openai: AsyncOpenAI
    """The official SDK, as users have it: it tries again what failed before an answer began."""
    ledger: Ledger = field(default_factory=Ledger)
    redis_shaken: bool = False
    """Redis is being taken away: readers may see what PostgreSQL has, and nobody is told that it is stale."""

    async def enter(self) -> None:
        """Wait until the door is open: Helm may say that all is ready a moment before the node lets anybody in."""

        async def is_open() -> bool:
            try:
                return (await self.call("GET", f"{self.door.url}/models"))[0] == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        await wait_until(is_open, f"{self.door.url} to be open", OPEN_SECONDS)

    async def move(self, url: str) -> None:
        """The Service has another node port."""
        self.door = Door(url)
        self.openai = self.openai.with_options(base_url=url)
        await self.enter()

    async def calm(self) -> tuple[str, int] | None:
        return None if self.redis_shaken else ("calm", 0)

    async def call(self, method: str, url: str, body: Json | None = None, key: str = "") -> tuple[int, Json]:
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        sent = None if body is None else orjson.dumps(body)
        async with self.http.request(method, url, data=sent, headers=headers) as answer:
            raw = await answer.read()
        value: Json = orjson.loads(raw)
        return answer.status, value

    async def post(self, pod: Address, path: str, body: Json, key: str = "") -> tuple[int, Json]:
        return await self.call("POST", f"{pod.url}/{path}", body, key)


@asynccontextmanager
async def town_of(release: Release) -> AsyncIterator[Town]:
    """Users come in by the node port of the API's Service, at the node's own address: the way that is nearest to real
    clients', through kube-proxy, and open on kind and minikube on Linux as here. A port-forward would bind each of them
    to one pod, and the API server's proxy takes their API key for its own. NODE_ADDRESS names another address, e.g.
    127.0.0.1 where a kind cluster maps its node ports.
    """
    url, key = await release.url(), await release.api_key()
    # Each request has a connection of its own, so that it goes to any of the pods, also to those that are new.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    patience = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(timeout=patience, connector=connector, headers=headers) as http,
        AsyncOpenAI(base_url=url, api_key=key, timeout=REQUEST_SECONDS) as openai,
    ):
        town = Town(release, Door(url), http, openai)
        await town.enter()
        yield town
