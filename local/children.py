"""Processes that we start: each in a session of its own, gone when we are gone, and found again after a kill -9.

A session of its own means that a terminal's Ctrl-C reaches us alone, so the order of the stop is ours.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
# The same process was started at the same time; the clock may have been corrected by a little since then.
SAME_START_SECONDS = 2.0
LOG_LIMIT_BYTES = 10 * 1024 * 1024  # looked at when a process starts
READY_POLL_SECONDS = 0.02
STALE_STOP_SECONDS = 15.0
# PostgreSQL's processes notice the death of their first one at once; a new one can't start before they are gone.
OFFSPRING_SECONDS = 10.0


class StartError(Exception):
    """A child ended, or took too long, before it was ready; the message has the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process; `stop_signal` is the one that it takes for a wish to stop in order."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    log_start: int
    """Where this process's own output begins: the log goes on from run to run."""
    stop_signal: signal.Signals

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def stop(self, grace_seconds: float) -> None:
        """Ask, wait, and kill what does not end by itself."""
        self.send(self.stop_signal)
        try:
            await asyncio.wait_for(self.process.wait(), grace_seconds)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the process at once, as a power cut would, and wait until nothing of it is left."""
        offspring = _offspring(self.process.pid)
        self.send(signal.SIGKILL)
        await self.process.wait()
        await asyncio.to_thread(_wait_gone, offspring, OFFSPRING_SECONDS)

    def last_lines(self, count: int = 5) -> str:
        text = self.log.read_bytes()[self.log_start :].decode(errors="replace")
        return "\n".join(text.splitlines()[-count:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def spawn(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    *,
    environment: Mapping[str, str],
    stop_signal: signal.Signals = signal.SIGTERM,
    death_signal: signal.Signals = signal.SIGKILL,
    user: int | None = None,
    cwd: Path | None = None,
) -> Child:
    """Start a process whose output goes to `folder/NAME.log`; `folder/NAME.pid` tells a later start whom to look for.

    `death_signal` is what the kernel sends it should we die first (on Linux). Call it from the main thread: to the
    kernel, "we" are the thread that started the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        log_start = output.tell()
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=cwd,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
            preexec_fn=_tie(death_signal),
        )
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).create_time()
        (folder / f"{name}.pid").write_text(f"{process.pid} {started}\n", encoding="utf-8")
    return Child(name, process, log, log_start, stop_signal)


async def wait_ready(child: Child, ready: Callable[[Child], Awaitable[bool]], timeout_seconds: float) -> Child:
    """Return the child once `ready` says so; end it and raise StartError if it never does."""
    try:
        async with asyncio.timeout(timeout_seconds):
            while child.running and not await ready(child):  # noqa: ASYNC110 - another process can't set an Event
                await asyncio.sleep(READY_POLL_SECONDS)
    except TimeoutError:
        await child.kill()
        reason = f"was not ready after {timeout_seconds:.0f} s"
    except BaseException:
        await child.kill()
        raise
    else:
        if child.running:
            return child
        reason = f"ended with status {child.process.returncode}"
    raise StartError(f"{child.name} {reason}; the end of {child.log}:\n{child.last_lines()}")


def end_stale(folder: Path, stop_signals: Mapping[str, signal.Signals]) -> list[str]:
    """End what an earlier run that was killed has left behind, one after the other in the order of `stop_signals`."""
    ended = []
    for name, stop_signal in stop_signals.items():
        file = folder / f"{name}.pid"
        process = _recorded(file)
        if process is not None:
            offspring = _offspring(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(stop_signal)
                if not _wait_gone([process], STALE_STOP_SECONDS):
                    process.kill()
            _wait_gone([process, *offspring], OFFSPRING_SECONDS)
            ended.append(name)
        file.unlink(missing_ok=True)
    return ended


def _recorded(file: Path) -> psutil.Process | None:
    try:
        pid, started = file.read_text(encoding="utf-8").split()
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < SAME_START_SECONDS
        return process if same and runs(process) else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None  # never written, cut off in the middle of writing, or ended by itself


def runs(process: psutil.Process) -> bool:
    """A zombie has ended; how soon a process that is not our child gets collected is init's affair."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_gone(processes: Sequence[psutil.Process], timeout_seconds: float) -> bool:
    end = time.monotonic() + timeout_seconds
    while any(map(runs, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(READY_POLL_SECONDS)
    return True


def _offspring(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _tie(death_signal: signal.Signals) -> Callable[[], None] | None:
    if LIBC is None:
        return None
    libc, parent = LIBC, os.getpid()

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # we died before the kernel knew of the wish
            os._exit(1)

    return before_exec
