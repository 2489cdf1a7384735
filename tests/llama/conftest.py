"""llama.cpp's server with a tiny model, and a service that asks it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local.children import HOST, Child, free_port, spawn, wait_ready
from local.parts import status
from tests.conftest import StartService
from tests.running import Part, Service

# Only `make test-llama` has a server, and says where.
collect_ignore_glob = [] if "LLAMA_PYTHON" in os.environ else ["test_*.py"]

CONTEXT_TOKENS = 8192
START_SECONDS = 60.0


@pytest.fixture(scope="session")
async def llama(anyio_backend: str, folder: Path) -> AsyncIterator[Part]:  # noqa: ARG001 - one event loop for all
    """It answers nonsense, one request at a time, and ends no answer by itself."""
    python, script, model = os.environ["LLAMA_PYTHON"], os.environ["TINY_MODEL"], str(folder / "tiny.gguf")
    port = free_port()
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    made = await spawn("tiny_model", [python, script, model], folder / "llama", environment=environment)
    assert await made.process.wait() == 0, made.last_lines()
    command = [python, "-m", "llama_cpp.server", "--model", model, "--model_alias", "tiny"]
    command += ["--n_ctx", str(CONTEXT_TOKENS), "--host", HOST, "--port", str(port)]

    async def ready(_: Child) -> bool:
        return await status(port, "/v1/models") == 200

    async def start() -> Child:
        child = await spawn("llama", command, folder / "llama", environment=environment)
        return await wait_ready(child, ready, START_SECONDS)

    server = Part(port, start)
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def llama_service(start_service: StartService, llama: Part) -> Service:
    return await start_service(OPENAI_BASE_URL=f"http://{HOST}:{llama.port}/v1", MODEL="tiny")
