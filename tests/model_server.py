"""A real Valkey under a model: the product's own Lua scripts, a clock that the model moves, copies that it rewinds to.

The clock and the server's run id are all that is replaced in the scripts, so that a run depends on nothing but its
steps. They are called by the product's own functions. Whoever breaks a script on purpose gives the text to replace; a
text that is gone fails loudly.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ResponseError

from api.lanes import Lanes
from core.queue import Argument, Script
from local.parts import ROOT

CLOCK = "model:clock"
RUN = "model:run"
OWN_KEYS = {CLOCK.encode(), RUN.encode()}
MANY_COMMANDS = 1_000_000_000
START_US = 1_790_000_000_000_000
REAL_CLOCK = "local time = redis.call('TIME')"
MODEL_CLOCK = f"local time = {{'0', redis.call('GET', '{CLOCK}')}}"
REAL_RUN = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"
MODEL_RUN = f"redis.call('GET', '{RUN}')"
FOLDERS = ("core", "worker", "api")
OPENS_EPOCH = "renew"
# Of all others.
PARTS = {"prelude", "epoch", "rates"}
RATES = (ROOT / "api" / "scripts" / "rates.lua").read_text(encoding="utf-8")

T = TypeVar("T")
Break = tuple[str, str, str]
"""Of a broken variant: the script's name, a text that occurs once in it, and what stands there instead."""


class GuaranteeError(AssertionError):
    """The product broke a promise."""


def patched(source: str, old: str, new: str) -> str:
    if source.count(old) != 1:
        raise LookupError(f"found {source.count(old)} times, not once: {old}")
    return source.replace(old, new)


@dataclass(frozen=True, slots=True)
class Copy:
    """All keys but the model's own, as an append-only file of that moment would bring them back."""

    keys: list[tuple[bytes, int, bytes]]
    """Name, remaining milliseconds (0: for ever), value."""


class ModelRedis(AsyncRedis):
    """What the product's own functions take for their connection: each command is one of the model's, at once."""

    def __init__(self, server: "ModelServer") -> None:
        super().__init__()
        self._server = server

    async def execute_command(self, *arguments: Any, **_: Any) -> Any:
        reply = self._server.execute(*arguments)
        if arguments[0] == "EVALSHA" and self._server.after_reply is not None:
            strike, self._server.after_reply = self._server.after_reply, None
            await strike()
        return reply

    def pipeline(self, *_: Any, **__: Any) -> Any:
        return ModelPipeline(self._server)


class ModelPipeline:
    """Of scripts alone."""

    def __init__(self, server: "ModelServer") -> None:
        self._server = server
        self._replies: list[Any] = []

    def evalsha(self, *arguments: Any) -> None:
        self._replies.append(self._server.execute("EVALSHA", *arguments))

    async def execute(self, **_: Any) -> list[Any]:
        return self._replies


class ModelLanes(Lanes):
    """Nobody else's call is there to go together with."""

    def __init__(self, redis: ModelRedis) -> None:
        super().__init__(redis)
        self._own = redis

    async def call(self, script: Script, *arguments: Argument) -> Any:
        return await script(self._own, *arguments)


class ModelServer:
    """All scripts of the product, on a server that belongs to the model alone."""

    def __init__(self, redis: Redis, breaks: Sequence[Break] = (), *, always_losing: bool = False) -> None:
        self.redis = redis
        self.always_losing = always_losing
        self.client = ModelRedis(self)
        self.lanes = ModelLanes(self.client)
        self.now_us = START_US
        self.losing_replies = False
        """Each script is run twice: its first reply was lost, and the client sends it again."""
        self.after_reply: Callable[[], Awaitable[None]] | None = None
        """What happens between the next script's reply and its client's next step."""
        self.runs = 0
        self.commands_left = MANY_COMMANDS
        """Of one request: who is refused for ever asks more."""
        self.waiting_ms = 0
        """How long who is refused a loader's ticket waits."""
        self._latest_us = START_US
        self._earliest_us = 0
        self._moves = 0
        self._hashes: dict[str, str] = {}
        self._names: dict[str, str] = {}
        paths = {path.stem: path for folder in FOLDERS for path in (ROOT / folder / "scripts").glob("*.lua")}
        unknown = {name for name, _, _ in breaks} - paths.keys()
        assert not unknown, f"no such scripts: {unknown}"
        for name in paths.keys() - PARTS:
            self._load(paths[name], [(old, new) for script, old, new in breaks if script == name])

    def _load(self, path: Path, breaks: list[tuple[str, str]]) -> None:
        """Under each name by which the product may call it."""
        opens = path.stem == OPENS_EPOCH
        for library in ("", RATES):
            scripts = [
                Script(path, allow_oom=allow_oom, opens_epoch=opens, library=library) for allow_oom in (False, True)
            ]
            source = patched(scripts[1].source, REAL_CLOCK, MODEL_CLOCK)
            if opens:
                source = patched(source, REAL_RUN, MODEL_RUN)
            for old, new in breaks:
                source = patched(source, old, new)
            loaded = self.redis.script_load(source)
            self._hashes |= {script.sha: loaded for script in scripts}
            self._names |= {script.sha: path.stem for script in scripts}

    def execute(self, command: str, *arguments: Any) -> Any:
        self.commands_left -= 1
        if self.commands_left < 0:
            raise GuaranteeError("a request asks again and again")
        if command != "EVALSHA":
            untyped: Any = self.redis
            return untyped.execute_command(command, *arguments)
        sha, *rest = arguments
        try:
            if self.losing_replies:
                self.redis.evalsha(self._hashes[sha], *rest)
            reply = self.redis.evalsha(self._hashes[sha], *rest)
        except ResponseError as error:
            raise GuaranteeError(f"{self._names[sha]} fails: {error}") from error
        if self._names[sha] == "take_ticket" and reply[0] == 0 and self.waiting_ms:
            self.move_clock(self.waiting_ms)
        return reply

    def run(self, steps: Coroutine[Any, Any, T]) -> T:
        """One of the product's functions, which finds nothing to wait for."""
        try:
            steps.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        raise RuntimeError("it waits for something else than Redis")

    def clear(self) -> None:
        """Another run of Redis on a new volume: everything is gone but the time of day."""
        self.redis.flushall()
        self._earliest_us = 0
        self._start()

    def restart(self) -> None:
        """Another run of Redis that lacks nothing."""
        self._start()

    def _start(self) -> None:
        # It takes longer than the moment that an epoch is named after.
        before = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == before:
            pass
        self.runs += 1
        self.redis.mset({CLOCK: self.now_us, RUN: self.runs})

    def move_clock(self, milliseconds: int) -> None:
        """By an odd microsecond more each time: no moment comes twice when the clock goes back."""
        self._moves += 1
        self._set_clock(self.now_us + milliseconds * 1000 + self._moves)

    def restart_clock(self) -> None:
        """Nobody is promised anything of a Redis that loses its memory and the time of day (docs/reliability.md)."""
        self._earliest_us = self._latest_us + 1_000_000
        self._set_clock(self._earliest_us)

    def _set_clock(self, now_us: int) -> None:
        now_us = max(now_us, self._earliest_us)
        self.now_us = now_us
        self._latest_us = max(self._latest_us, now_us)
        self.redis.set(CLOCK, now_us)

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def newest(self, name: str, count: int) -> list[bytes]:
        entries: list[Any] = self.redis.lrange(name, -count, -1)
        return entries

    def copy(self) -> Copy:
        names: list[bytes] = [name for name in self.redis.scan_iter(count=1000) if name not in OWN_KEYS]
        pipeline = self.redis.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
            pipeline.dump(name)
        replies = pipeline.execute()
        lives, values = replies[::2], replies[1::2]
        return Copy([(name, max(life, 0), value) for name, life, value in zip(names, lives, values, strict=True)])

    def restore(self, copy: Copy) -> None:
        self.clear()
        pipeline = self.redis.pipeline(transaction=False)
        for name, life, value in copy.keys:
            pipeline.restore(name, life, value)
        pipeline.execute()
