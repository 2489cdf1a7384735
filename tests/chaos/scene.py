"""What users need of the place where they talk: processes on this machine (stage.py), or a release in a cluster."""

from typing import Any, Protocol

import aiohttp

from tests.chaos.said import Ledger

Json = dict[str, Any]


class Address(Protocol):
    """Somebody who answers."""

    @property
    def url(self) -> str:
        """The API's /v1."""


class Scene(Protocol):
    ledger: Ledger
    http: aiohttp.ClientSession

    async def calm(self) -> tuple[str, int] | None:
        """The same value twice: between the two, nobody lost his way to Redis. None: somebody may just have."""

    async def call(self, method: str, url: str, body: Json | None = None, key: str = "") -> tuple[int, Json]:
        """(status, answer); raises aiohttp.ClientError or TimeoutError when there was none."""

    async def post(self, pod: Address, path: str, body: Json, key: str = "") -> tuple[int, Json]: ...
