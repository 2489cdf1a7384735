"""`python -m local`: the whole service on this machine, each part a process of its own, until Ctrl-C."""

import asyncio
import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import Coroutine, Mapping
from functools import partial

import orjson

from api.settings import Settings as ApiSettings
from core.settings import SettingsError, report
from local.children import HOST, StartError, end_stale
from local.embedded import (
    DATABASE,
    POSTGRES_BINARIES,
    POSTGRES_STOP,
    USER,
    VALKEY_STOP,
    start_postgres,
    start_valkey,
)
from local.parts import MODULE_STOP, migrate, start_module
from local.settings import PortTakenError, Settings, data_folder, read_settings, variables
from local.supervisor import Part, say, supervise

WORKER_STOP_SECONDS = STORE_STOP_SECONDS = 60.0
# Beyond the time that running turns get: to close them.
API_STOP_MARGIN_SECONDS = 10.0
# In the order of the stop: nobody loses what it still needs.
STALE = {
    "api": MODULE_STOP,
    "worker": MODULE_STOP,
    "migrate": MODULE_STOP,
    "initdb": POSTGRES_STOP,
    "valkey": VALKEY_STOP,
    "postgres": POSTGRES_STOP,
}


def main() -> int:
    given = variables()
    data = data_folder(given)
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"already running on {data} (process {lock.read().strip()}): stop that one, or set DATA_FOLDER")
            return 1
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        ended = end_stale(data / "logs", STALE)
        if ended:
            say(f"ended what a killed run had left behind: {', '.join(ended)}")
        try:
            settings = read_settings(given)
        except SettingsError as error:
            sys.stderr.write(report(error))
            return 2
        except PortTakenError as error:
            say(str(error))
            return 1
        return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    environment, logs, data = settings.environment, settings.logs, settings.data
    start_api = partial(start_module, "api", environment, logs, settings.api.port)
    start_worker = partial(start_module, "worker", environment, logs, settings.health_port)
    api = Part("api", start_api, settings.api.drain_seconds + API_STOP_MARGIN_SECONDS)
    worker = Part("worker", start_worker, WORKER_STOP_SECONDS)
    stores = []
    if settings.valkey_port:
        start_store = partial(start_valkey, data / "valkey", logs, settings.valkey_port)
        stores.append(Part("valkey", start_store, STORE_STOP_SECONDS))
    if settings.postgres_port:
        start_store = partial(start_postgres, data / "postgres", logs, settings.postgres_port)
        stores.append(Part("postgres", start_store, STORE_STOP_SECONDS))

    async def migrate_and_start_worker() -> None:
        await migrate(environment, logs)
        await worker.start()

    async def start_all() -> None:
        await _together(*(store.start() for store in stores))
        await _together(api.start(), migrate_and_start_worker())
        say(_greeting(settings))

    return await supervise(start_all, [api, worker, *stores])


async def _together(*starts: Coroutine[None, None, None]) -> None:
    """Wait for all; the first failure ends the others and is told alone."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for start in starts:
                tasks.create_task(start)
    except* StartError as group:
        raise group.exceptions[0] from None


def _greeting(settings: Settings) -> str:
    api, environment = settings.api, settings.environment
    url = f"http://{HOST}:{api.port}/v1"
    key = " -H 'Authorization: Bearer YOUR_KEY'" if api.callers else ""
    body = orjson.dumps({"model": api.model, "input": "Hello!"}).decode()
    lines = {
        "upstream": _upstream_line(api),
        "key": str(api.keys_file or "API_KEY") if api.callers else "none is asked for (API_KEY asks for one)",
        "try": f"curl {url}/responses -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}",
        "chat": "make chat",
        "history": _connect_line(environment),
        "data": f"{settings.data} (logs/ beside the stores)",
        "metrics": f"http://{HOST}:{api.metrics_port}/metrics http://{HOST}:{settings.health_port}/metrics",
    }
    return f"\n{url} is ready; Ctrl-C stops it\n\n" + "".join(f"  {name:9} {line}\n" for name, line in lines.items())


def _upstream_line(api: ApiSettings) -> str:
    if api.upstreams_file:
        return f"{', '.join(api.upstreams.providers)} by {api.upstreams_file}; {api.model} when none is named"
    [upstream] = api.upstreams.providers.values()
    if upstream.base_url:
        return f"{api.model} at {upstream.base_url}"
    return "none, the built-in model `echo` answers (OPENAI_API_KEY or OPENAI_BASE_URL choose another)"


def _connect_line(environment: Mapping[str, str]) -> str:
    """How to look at the stored conversations; our own psql when the machine has none."""
    psql = shutil.which("psql") or os.path.relpath(POSTGRES_BINARIES / "psql")
    host, port = environment["PG_HOST"], environment.get("PG_PORT", "5432")
    return (
        f"{psql} -h {host} -p {port} -U {environment.get('PG_USER', USER)} {environment.get('PG_DATABASE', DATABASE)}"
    )


if __name__ == "__main__":
    sys.exit(main())
