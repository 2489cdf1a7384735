"""The processes that are measured: the service on its stores, the bare relay, and the model server behind both."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from local.children import HOST, Child, free_port, spawn, wait_ready
from local.embedded import start_postgres, start_valkey
from local.parts import ROOT, migrate, start_module, status

STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Stack:
    api_port: int
    relay_port: int
    upstream_port: int
    redis_port: int
    api: Child
    relay: Child
    worker: Child
    folder: Path
    environment: dict[str, str]
    """Of the API's process."""


@asynccontextmanager
async def started() -> AsyncIterator[Stack]:
    """Everything, in a temporary folder, gone at the end."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatbot-bench-")))
        folder.chmod(0o755)  # noqa: ASYNC240 - once; PostgreSQL may run under another account
        api_port, relay_port, upstream_port, redis_port, postgres_port, worker_port = (free_port() for _ in range(6))
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOST": HOST,
            "PORT": str(api_port),
            "METRICS_PORT": str(free_port()),
            "HEALTH_PORT": str(worker_port),
            "REDIS_PORT": str(redis_port),
            "PG_PORT": str(postgres_port),
            "OPENAI_BASE_URL": f"http://{HOST}:{upstream_port}/v1",
            "AUTH": "none",
        }

        async def module(name: str, port: int) -> Child:
            command = [sys.executable, "-m", f"bench.{name}", "--port", str(port)]
            child = await spawn(name, command, folder, environment=environment, cwd=ROOT)
            stack.push_async_callback(child.stop, STOP_SECONDS)

            async def answers(_: Child) -> bool:
                return await status(port, "/") != 0

            return await wait_ready(child, answers, STOP_SECONDS)

        postgres = await start_postgres(folder / "postgres", folder, postgres_port)
        stack.push_async_callback(postgres.stop, STOP_SECONDS)
        valkey = await start_valkey(folder / "valkey", folder, redis_port)
        stack.push_async_callback(valkey.stop, STOP_SECONDS)
        await migrate(environment, folder)
        await module("upstream", upstream_port)
        relay = await module("relay", relay_port)
        api = await start_module("api", environment, folder, api_port)
        stack.push_async_callback(api.stop, STOP_SECONDS)
        worker = await start_module("worker", environment, folder, worker_port)
        stack.push_async_callback(worker.stop, STOP_SECONDS)
        yield Stack(api_port, relay_port, upstream_port, redis_port, api, relay, worker, folder, environment)
