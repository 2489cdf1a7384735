"""Real servers and processes that a test can kill, stop and start again at the same address."""

import asyncio
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.children import HOST, Child, free_port
from local.embedded import DATABASE, USER, create_database, start_postgres, start_valkey
from local.parts import ROOT, migrate, start_module

STOP_SECONDS = 20.0
COMMAND_SECONDS = 20.0


@dataclass
class Part:
    """One process. After `kill` or `terminate`, `start` brings it back on its data and its port."""

    port: int
    start_child: Callable[[], Awaitable[Child]]
    host: str = HOST
    _child: Child | None = None

    @property
    def child(self) -> Child:
        assert self._child is not None, "not started yet"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self._child = await self.start_child()

    async def kill(self) -> None:
        await self.child.kill()

    async def terminate(self) -> int:
        """Stop it in order and return its exit status (negative: the signal that it took in the end)."""
        await self.child.stop(STOP_SECONDS)
        return await self.child.process.wait()

    async def restart(self) -> None:
        await self.terminate()
        await self.start()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self.child.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.child.send(signal.SIGCONT)

    def log_text(self) -> str:
        return self.child.log.read_text(encoding="utf-8", errors="replace")

    async def close(self) -> None:
        if self._child is not None and self._child.running:
            self.resume()
            await self.terminate()


class Folder:
    """A temporary folder that the unprivileged account of PostgreSQL can reach too."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="chatbot-test-"))
        self.path.chmod(0o755)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def valkey_in(folder: Path) -> Part:
    port = free_port()
    return Part(port, lambda: start_valkey(folder / "valkey", folder, port))


@dataclass
class Postgres(Part):
    user: str = USER
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def new_database(self) -> str:
        """An empty database that `user` owns; its name."""
        name = f"{DATABASE}_{next(self._numbers)}"
        await create_database(self.port, name)
        return name


def postgres_in(folder: Path) -> Postgres:
    port = free_port()
    return Postgres(port, lambda: start_postgres(folder / "postgres", folder, port))


@dataclass
class Service:
    """An API and a worker as separate processes. `url` is the API's `/v1`."""

    environment: dict[str, str]
    api: Part
    worker: Part
    logs: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.api.port}/v1"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self.environment['METRICS_PORT']}/metrics"

    @property
    def worker_url(self) -> str:
        """Where the worker serves /livez, /readyz and /metrics."""
        return f"http://{HOST}:{self.worker.port}"

    async def start(self, *, worker: bool = True) -> None:
        await asyncio.gather(self.api.start(), self._start_worker(start=worker))

    async def _start_worker(self, *, start: bool) -> None:
        await migrate(self.environment, self.logs)
        if start:
            await self.worker.start()

    async def close(self) -> None:
        await self.api.close()
        await self.worker.close()


def service_on(valkey: Part, postgres: Postgres, database: str, logs: Path, **settings: str) -> Service:
    """A service on these servers, not yet started. `settings` are added to its environment; an empty one is unset."""
    api_port, worker_port = free_port(), free_port()
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONWARNINGS": "error",
        "HOST": HOST,
        "PORT": str(api_port),
        "METRICS_PORT": str(free_port()),
        "HEALTH_PORT": str(worker_port),
        "REDIS_HOST": valkey.host,
        "REDIS_PORT": str(valkey.port),
        "PG_HOST": postgres.host,
        "PG_PORT": str(postgres.port),
        "PG_USER": postgres.user,
        "PG_DATABASE": database,
        "AUTH": "none",
        **settings,
    }
    environment = {name: value for name, value in environment.items() if value}
    api = Part(api_port, lambda: start_module("api", environment, logs, api_port))
    worker = Part(worker_port, lambda: start_module("worker", environment, logs, worker_port))
    return Service(environment, api, worker, logs)


async def worker_command(service: Service, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `python -m worker ARGUMENTS`."""
    return await run_worker({**service.environment, **settings}, *arguments)


async def run_worker(environment: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
