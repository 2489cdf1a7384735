"""A gate between one of our processes and Redis or PostgreSQL: it catches the process exactly between two steps.

A rule names bytes of a request. `before`: they wait at the gate, so the server lacks them. `after`: the server has
got them and has answered, and the answer waits at the gate. A held connection is let go on (`release`) or ends (`cut`:
cut `after`, the reply to a command that was carried out is lost). A client that dies meanwhile is seen by the server.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from redis.asyncio import Redis

from core.queue import Script
from local.children import HOST

CHUNK_BYTES = 1 << 18
# How far back a pattern, and what it must be `within`, may have begun.
REMEMBERED_BYTES = 4096
TLS_REQUEST_BYTES = 8
Place = Literal["before", "after"]


@dataclass(eq=False)
class Rule:
    """Holds connections at `pattern`: after letting `skip` of them by, `times` of them."""

    pattern: bytes
    place: Place
    skip: int
    times: int
    within: bytes
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """A connection waits here, or has waited."""
    seen: int = 0
    replies: list[bytes] = field(default_factory=list)
    """What the server answered to what was held `after`, and to what was held `before` once that was released."""
    _go: asyncio.Event = field(default_factory=asyncio.Event)
    _cut: bool = False

    def release(self) -> None:
        """Let all go on, now and later."""
        self._go.set()

    def cut(self) -> None:
        """End the connections that wait here, and those that come."""
        self._cut = True
        self._go.set()

    def takes(self, passed: bytes, chunk: bytes) -> bool:
        """Whether a request that brings this chunk, behind what has passed, has to wait."""
        overlap = passed[-(len(self.pattern) - 1) :] if len(self.pattern) > 1 else b""
        if self.pattern not in overlap + chunk or (self.within and self.within not in passed + chunk):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times

    async def wait(self, line: "_Line") -> bool:
        """Wait for the word; False when the connection ends here, by us or because its client is gone."""
        self.held.set()
        if not self._go.is_set():
            word, left = asyncio.create_task(self._go.wait()), asyncio.create_task(line.client_left.wait())
            try:
                await asyncio.wait({word, left}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                word.cancel()
                left.cancel()
        return self._go.is_set() and not self._cut


@dataclass(eq=False)
class _Line:
    """One connection of the process, and ours to the server on its behalf."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    requests: "asyncio.Queue[bytes]" = field(default_factory=asyncio.Queue)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)
    reply_rule: Rule | None = None
    listening: Rule | None = None

    async def read_client(self) -> None:
        """Reads on also while requests wait, so that the client's death is noticed."""
        try:
            while chunk := await self.client.read(CHUNK_BYTES):
                self.requests.put_nowait(chunk)
        finally:
            self.client_left.set()
            self.requests.put_nowait(b"")

    def close(self) -> None:
        # Both at once and without a farewell: what is on its way is lost, as with a cable.
        self.to_server.transport.abort()
        self.to_client.transport.abort()


@dataclass(eq=False)
class Gate:
    """Listens on `port` and forwards to the server; one for each process and server that shall be caught."""

    target: int
    only: bytes = b""
    """Rules are for those connections alone that begin with these bytes in what they say of themselves."""
    port: int = 0
    shut: bool = False
    """While it is, nobody gets through: new connections are closed at once."""
    keeps: bool = False
    """While it does, a client learns what the server says last, but not that it has gone."""
    rules: list[Rule] = field(default_factory=list)
    cuts: int = 0
    refused: int = 0
    """Connections that came while it was shut."""
    _lines: set[_Line] = field(default_factory=set)

    def hold(
        self, pattern: bytes | Script, place: Place = "before", *, skip: int = 0, times: int = 1, within: bytes = b""
    ) -> Rule:
        """From now on requests with the pattern are held; `within`: bytes that are in or shortly before them.

        A script is known by its hash, which Redis must know too: `await learn(redis, script)` before `after`.
        """
        if isinstance(pattern, Script):
            pattern = pattern.sha.encode()
        rule = Rule(pattern, place, skip, times, within)
        self.rules.append(rule)
        return rule

    def cut(self) -> int:
        """End all connections of this moment; how many there were."""
        lines = list(self._lines)
        self.cuts += 1
        for line in lines:
            line.close()
        return len(lines)

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.shut:
            self.refused += 1
            to_client.transport.abort()
            return
        try:
            server, to_server = await asyncio.open_connection(HOST, self.target)
        except OSError:
            to_client.transport.abort()
            return
        line = _Line(client, to_client, server, to_server)
        self._lines.add(line)
        reading = asyncio.create_task(line.read_client())
        pumps = [asyncio.create_task(self._requests(line)), asyncio.create_task(self._replies(line))]
        try:
            # The reader's end alone ends nothing: what it has read is still to be delivered.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._lines.discard(line)
            line.close()
            for pump in (reading, *pumps):
                pump.cancel()
            await asyncio.gather(reading, *pumps, return_exceptions=True)

    async def _requests(self, line: _Line) -> None:
        passed, caught = b"", None if self.only else True
        while chunk := await line.requests.get():
            # A client of PostgreSQL may ask for TLS first, in 8 bytes, and says who it is after that.
            caught = self.only in chunk if caught is None and len(chunk) > TLS_REQUEST_BYTES else caught
            rule = next((rule for rule in self.rules if rule.takes(passed, chunk)), None) if caught else None
            passed = (passed + chunk)[-REMEMBERED_BYTES:]
            if rule is not None and rule.place == "after":
                line.reply_rule = rule
            elif rule is not None:
                if not await rule.wait(line):
                    return
                line.listening = rule
            line.to_server.write(chunk)
            await line.to_server.drain()

    async def _replies(self, line: _Line) -> None:
        while chunk := await line.server.read(CHUNK_BYTES):
            rule, line.reply_rule = line.reply_rule, None
            if line.listening is not None:
                line.listening.replies.append(chunk)
                line.listening = None
            if rule is not None:
                rule.replies.append(chunk)
                if not await rule.wait(line):
                    return
            line.to_client.write(chunk)
            await line.to_client.drain()
        if self.keeps:
            await line.client_left.wait()


@asynccontextmanager
async def gate_to(target: int, only: bytes = b"") -> AsyncIterator[Gate]:
    """A gate on a port of its own. At the end every connection through it ends."""
    gate = Gate(target, only)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await gate.serve(client, to_client)
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, HOST, 0, limit=CHUNK_BYTES)
    gate.port = server.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def learn(redis: Redis, *scripts: Script) -> None:
    """Redis knows the scripts afterwards, so that each call of them is one request with its hash."""
    for script in scripts:
        await redis.script_load(script.source)
