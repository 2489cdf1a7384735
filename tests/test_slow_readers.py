"""Clients that do not read what they asked for: they hold nobody up, cost little, and are cut off."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import orjson
import psutil
import pytest
from websockets.asyncio.client import connect

from tests.conftest import StartService
from tests.running import Service
from tests.talking import DONE, Json, event_of, talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# Some 9 MB of events: more than the kernel keeps for a connection.
WORDS = "a " * 40_000
FOLLOWERS = 6
MOST_GROWTH_BYTES = 24 * 1024 * 1024
SMALL_BUFFER_BYTES = 4096
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
async def impatient(start_service: StartService) -> Service:
    return await start_service(MODEL="echo", SLOW_CLIENT_SECONDS="2")


def narrow_socket(service: Service) -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    raw.connect(("127.0.0.1", service.api.port))
    return raw


@asynccontextmanager
async def unread(service: Service, head: bytes, body: Json | None = None) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose answer waits in the socket until the reader is used."""
    reader, writer = await asyncio.open_connection(sock=narrow_socket(service), limit=SMALL_BUFFER_BYTES)
    payload = b"" if body is None else orjson.dumps(body)
    headers = (
        b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    writer.write(head + headers % len(payload) + payload)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def cut(reader: asyncio.StreamReader) -> bool:
    """Read on: whether the connection breaks before the stream's end."""
    last = b""
    try:
        while chunk := await asyncio.wait_for(reader.read(65536), 10):
            last = (last + chunk)[-100:]
    except ConnectionResetError:
        return True
    return DONE not in last


def open_connections(service: Service) -> int:
    """How many clients the API has at this moment."""
    found = psutil.Process(service.api.pid).net_connections("tcp")
    return sum(one.laddr[1] == service.api.port and one.status == psutil.CONN_ESTABLISHED for one in found)


async def test_they_cost_little_and_are_cut_off(impatient: Service) -> None:
    """The one who began the turn and others who follow it; the turn itself ends, and who reads gets all of it."""
    async with talk(impatient) as client, aiohttp.ClientSession() as http:
        conversation = (await client.conversations.create()).id
        body = {"input": WORDS, "stream": True, "conversation": conversation}
        large = io.BytesIO(orjson.dumps({**body, "conversation": None}))
        async with http.post(f"{impatient.url}/responses", data=large, headers=JSON) as answer:
            whole = await answer.read()
        name: str = event_of(whole.partition(b"\n\n")[0])["response"]["id"]
        before = psutil.Process(impatient.api.pid).memory_info().rss
        again = b"GET /v1/responses/%b?stream=true" % name.encode()
        async with AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(unread(impatient, b"POST /v1/responses", body))]
            readers += [await stack.enter_async_context(unread(impatient, again)) for _ in range(FOLLOWERS)]

            async def ended() -> bool:
                return len((await client.conversations.items.list(conversation)).data) == 2

            await wait_until(ended, "the turn to end", 20)
            async with http.get(f"{impatient.url}/responses/{name}?stream=true") as answer:
                assert await answer.read() == whole
            grown = psutil.Process(impatient.api.pid).memory_info().rss - before
            assert grown < MOST_GROWTH_BYTES, f"{grown / 1024 / 1024:.0f} MB"
            await asyncio.gather(client.close(), http.close())
            await wait_until(lambda: open_connections(impatient) == 0, "the connections to be cut")
            assert [await cut(reader) for reader in readers] == [True] * len(readers)


@pytest.mark.parametrize("transport", ["events", "websocket"])
async def test_an_unstored_turn_ends_with_them(impatient: Service, transport: str) -> None:
    """Nobody else could read it."""
    before = await turns(impatient)
    if transport == "events":
        async with unread(impatient, b"POST /v1/responses", {"input": WORDS, "stream": True, "store": False}):
            await wait_until(lambda: has_ended(impatient, before), "the turn to end")
    else:
        url = f"ws://127.0.0.1:{impatient.api.port}/v1/responses"
        async with connect(
            url, sock=narrow_socket(impatient), max_queue=1, max_size=None, close_timeout=0.1
        ) as connection:
            await connection.send(orjson.dumps({"type": "response.create", "input": WORDS, "store": False}).decode())
            await wait_until(lambda: has_ended(impatient, before), "the turn to end")


async def turns(service: Service) -> float:
    """How many turns have ended, whatever their status."""
    async with aiohttp.ClientSession() as http, http.get(service.metrics_url) as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("chatbot_turns_total"))


async def has_ended(service: Service, before: float) -> bool:
    return await turns(service) > before
