"""A real Valkey under a model: the product's own Lua scripts, a clock that the model moves, copies that it rewinds to.

The clock and the server's run id are all that is replaced in the scripts, so that a run depends on nothing but its
steps. Whoever breaks a script on purpose gives the text to replace; a text that is gone fails loudly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from core.queue import Argument, Script
from local.parts import ROOT

CLOCK = "model:clock"
RUN = "model:run"
OWN_KEYS = {CLOCK.encode(), RUN.encode()}
START_US = 1_790_000_000_000_000
REAL_CLOCK = "local time = redis.call('TIME')"
MODEL_CLOCK = f"local time = {{'0', redis.call('GET', '{CLOCK}')}}"
REAL_RUN = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"
MODEL_RUN = f"redis.call('GET', '{RUN}')"
OPENS_EPOCH = "renew"

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


class ModelServer:
    """The scripts of one process's folders by name, on a server that belongs to the model alone."""

    def __init__(self, redis: Redis, folders: Mapping[str, Sequence[str]], breaks: Sequence[Break] = ()) -> None:
        self.redis = redis
        self.now_us = START_US
        self._latest_us = START_US
        self._moves = 0
        self._runs = 0
        self._hashes = {}
        names = {name: folder for folder, scripts in folders.items() for name in scripts}
        unknown = {name for name, _, _ in breaks} - names.keys()
        assert not unknown, f"no such scripts: {unknown}"
        for name, folder in names.items():
            opens = name == OPENS_EPOCH
            source = Script(ROOT / folder / "scripts" / f"{name}.lua", allow_oom=True, opens_epoch=opens).source
            source = patched(source, REAL_CLOCK, MODEL_CLOCK)
            if opens:
                source = patched(source, REAL_RUN, MODEL_RUN)
            for script, old, new in breaks:
                if script == name:
                    source = patched(source, old, new)
            self._hashes[name] = redis.script_load(source)

    def call(self, name: str, *arguments: Argument) -> Any:
        try:
            return self.redis.evalsha(self._hashes[name], 0, *arguments)
        except ResponseError as error:
            raise GuaranteeError(f"{name} fails: {error}") from error

    def clear(self) -> None:
        """Another run of Redis on a new volume: everything is gone but the time of day."""
        self._runs += 1
        self.redis.flushall()
        self.redis.mset({CLOCK: self.now_us, RUN: self._runs})

    def move_clock(self, milliseconds: int) -> None:
        """By an odd microsecond more each time: no moment comes twice when the clock goes back."""
        self._moves += 1
        self._set_clock(self.now_us + milliseconds * 1000 + self._moves)

    def restart_clock(self) -> None:
        """Nobody is promised anything of a Redis that loses its memory and the time of day at once."""
        self._set_clock(self._latest_us + 1_000_000)

    def _set_clock(self, now_us: int) -> None:
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
