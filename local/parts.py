"""Our own two processes, started as in production: by their modules, with everything they need in the environment."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from local.children import HOST, Child, StartError, spawn, wait_ready

ROOT = Path(__file__).parent.parent
MODULE_STOP = signal.SIGTERM
START_TIMEOUT_SECONDS = 30.0
# A request for a status page on the same machine.
STATUS_TIMEOUT_SECONDS = 5.0


async def start_module(
    module: str, environment: Mapping[str, str], logs: Path, ready_port: int, code: Path | None = None
) -> Child:
    """Run `python -m MODULE`, of this tree or of `code`, and wait until its /readyz answers 200 at `ready_port`."""
    child = await spawn_module(module, environment, logs, code)

    async def ready(_: Child) -> bool:
        return await status(ready_port, "/readyz") == 200

    return await wait_ready(child, ready, START_TIMEOUT_SECONDS)


async def spawn_module(module: str, environment: Mapping[str, str], logs: Path, code: Path | None = None) -> Child:
    command = [sys.executable, "-m", module]
    return await spawn(module, command, logs, environment=environment, cwd=code or ROOT, stop_signal=MODULE_STOP)


async def migrate(environment: Mapping[str, str], logs: Path) -> None:
    command = [sys.executable, "-m", "worker", "migrate"]
    child = await spawn("migrate", command, logs, environment=environment, cwd=ROOT, stop_signal=MODULE_STOP)
    result = await child.process.wait()
    if result != 0:
        raise StartError(f"the migration ended with status {result}; the end of {child.log}:\n{child.last_lines()}")


async def status(port: int, path: str) -> int:
    """The status that this path answers with, 0 when nobody answers."""
    try:
        async with asyncio.timeout(STATUS_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(words[1]) if len(words) > 1 else 0
