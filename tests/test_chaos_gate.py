"""The campaign's tools do what they say: the gate on a real connection, each knob of the shim on a real server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from local.children import HOST, Child, free_port, spawn, wait_ready
from local.embedded import VALKEY_SETTINGS
from tests.chaos.gate import Gate, gate_to
from tests.chaos.shim import Shim, make_shim
from tests.running import Folder, Part
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@dataclass
class Echo:
    """A server that sends back what it gets, and notes it."""

    port: int = 0
    got: bytes = b""
    ended: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                self.got += chunk
                writer.write(chunk)
        self.ended += 1
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    one = Echo()
    server = await asyncio.start_server(one.serve, HOST, 0)
    one.port = server.sockets[0].getsockname()[1]
    yield one
    server.close()
    for writer in one.writers:
        writer.close()


@pytest.fixture
async def gate(echo: Echo) -> AsyncIterator[Gate]:
    async with gate_to(echo.port) as one:
        yield one


@dataclass
class Caller:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def says(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def hears(self, count: int) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readexactly(count)

    async def hears_the_end(self) -> bool:
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                return await self.reader.read() == b""
            return True


@asynccontextmanager
async def calling(gate: Gate) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection(HOST, gate.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


async def test_the_gate_passes_what_no_rule_names(gate: Gate) -> None:
    large = bytes(range(256)) * 20_000
    async with calling(gate) as one, calling(gate) as other:
        await one.says(large)
        await other.says(b"hello")
        assert await other.hears(5) == b"hello"
        assert await one.hears(len(large)) == large


@pytest.mark.parametrize("pieces", [(b"COMMIT",), (b"COM", b"MIT"), (b"a", b"C", b"OMMITb")])
async def test_a_request_waits_before_the_server(gate: Gate, echo: Echo, pieces: tuple[bytes, ...]) -> None:
    """Also when its pattern comes in several pieces; other connections go on."""
    rule = gate.hold(b"COMMIT")
    async with calling(gate) as one, calling(gate) as other:
        await one.says(*pieces)
        await wait_until(rule.held.is_set, "the request to wait")
        await other.says(b"hello")
        assert await other.hears(5) == b"hello"
        assert b"COMMIT" not in echo.got
        rule.release()
        whole = b"".join(pieces)
        assert await one.hears(len(whole)) == whole


async def test_a_cut_before_keeps_the_request_from_the_server(gate: Gate, echo: Echo) -> None:
    rule = gate.hold(b"COMMIT")
    async with calling(gate) as one:
        await one.says(b"COMMIT")
        await wait_until(rule.held.is_set, "the request to wait")
        rule.cut()
        assert await one.hears_the_end()
    assert echo.got == b""


async def test_a_cut_after_loses_the_reply_alone(gate: Gate, echo: Echo) -> None:
    rule = gate.hold(b"COMMIT", "after")
    async with calling(gate) as one:
        await one.says(b"COMMIT")
        await wait_until(rule.held.is_set, "the reply to wait")
        assert (echo.got, rule.replies) == (b"COMMIT", [b"COMMIT"])
        rule.cut()
        assert await one.hears_the_end()


async def test_the_server_sees_that_a_held_client_died(gate: Gate, echo: Echo) -> None:
    rule = gate.hold(b"COMMIT")
    async with calling(gate) as one:
        await one.says(b"COMMIT")
        await wait_until(rule.held.is_set, "the request to wait")
        assert echo.ended == 0
    await wait_until(lambda: echo.ended == 1, "the server to see the end")
    assert echo.got == b""


async def test_some_are_let_by_first_and_only_so_many_wait(gate: Gate) -> None:
    rule = gate.hold(b"x", skip=1, within=b"yes")
    async with calling(gate) as one:
        for word in (b"x", b"yes-x"):
            await one.says(word)
            assert await one.hears(len(word)) == word
        assert not rule.held.is_set()
        await one.says(b"yes-x")
        await wait_until(rule.held.is_set, "the second to wait")
        rule.release()
        await one.hears(5)
        await one.says(b"yes-x")
        assert await one.hears(5) == b"yes-x"


REDIS_SERVER = "redis-server"


@dataclass
class Server:
    part: Part
    shim: Shim


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Server]:
    """Debian's Redis under the shim."""
    folder = Folder()
    shim = await make_shim(folder.path / "shim")
    data, port = folder.path / "data", free_port()
    data.mkdir()

    async def start() -> Child:
        settings = {**VALKEY_SETTINGS, "dir": str(data), "port": str(port)}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        environment = {"PATH": "/usr/bin", **shim.environment}
        child = await spawn("redis", [REDIS_SERVER, *words], folder.path, environment=environment)

        async def ready(_: Child) -> bool:
            async with Redis(host=HOST, port=port) as redis:
                with suppress(RedisConnectionError):
                    return bool(await redis.ping())
            return False

        return await wait_ready(child, ready, 20)

    one = Server(Part(port, start), shim)
    await one.part.start()
    yield one
    await one.part.close()
    folder.remove()


async def test_a_slow_disk(server: Server) -> None:
    async with Redis(host=HOST, port=server.part.port) as redis:
        before = server.shim.fsyncs
        server.shim.slow_fsync(0.2)
        began = time.monotonic()
        await redis.set("a", "b")
        slow = time.monotonic() - began
        server.shim.slow_fsync(0)
        began = time.monotonic()
        await redis.set("a", "c")
        assert slow >= 0.2 > time.monotonic() - began
        assert server.shim.fsyncs >= before + 2


async def test_a_wrong_clock(server: Server) -> None:
    async with Redis(host=HOST, port=server.part.port) as redis:
        for offset in (-3600, 90, 0):
            server.shim.turn_clock(offset)
            seconds, _ = await redis.time()
            assert abs(seconds - time.time() - offset) < 3
        await redis.set("short", "lived", px=60_000)
        server.shim.turn_clock(61)
        assert await redis.get("short") is None
        server.shim.turn_clock(0)


async def test_a_full_disk(server: Server) -> None:
    """With fsync at each write there is no going on: the server ends, and nothing that it answered is lost."""
    async with Redis(host=HOST, port=server.part.port) as redis:
        await redis.set("kept", "yes")
        server.shim.fill_disk(full=True)
        with pytest.raises(RedisConnectionError):
            await redis.set("refused", "yes")
        await wait_until(lambda: not server.part.child.running, "the server to end")
        assert "No space left on device" in server.part.log_text()
        server.shim.fill_disk(full=False)
        await server.part.start()
        assert await redis.mget("kept", "refused") == [b"yes", None]
