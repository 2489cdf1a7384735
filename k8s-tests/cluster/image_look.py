"""Looks around in an image from within, and prints what it saw as JSON: `python -c` in a pod runs this text."""

import importlib.util
import json
import os
import shutil
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ["pip", "pip3", "gcc", "cc", "g++", "ld", "make", "cmake", "git", "curl", "wget", "uv", "cargo", "go"]
MODULES = ["pip", "ensurepip", "setuptools", "wheel", "api", "worker", "core", "local", "tests"]
WEB = ["aiohttp", "fastapi", "httptools", "pydantic", "starlette", "uvicorn", "websockets"]


def entries(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Of one file system: what is mounted into it belongs to the pod."""
    device = Path(root).stat().st_dev
    ahead = [root]
    while ahead:
        for entry in os.scandir(ahead.pop()):
            status = entry.stat(follow_symlinks=False)
            if status.st_dev != device:
                continue
            yield entry.path, status
            if entry.is_dir(follow_symlinks=False) and os.access(entry.path, os.R_OK | os.X_OK):
                ahead.append(entry.path)


def changeable(status: os.stat_result) -> bool:
    """By the user that the image runs as, were the root not read-only; /tmp and its like are for everybody."""
    shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    group = stat.S_IWGRP if status.st_gid in (os.getgid(), *os.getgroups()) else 0
    written = status.st_mode & (stat.S_IWOTH | group) and not stat.S_ISLNK(status.st_mode) and not shared
    return bool(written) or status.st_uid == os.getuid()


def megabytes(root: str) -> float:
    return round(sum(status.st_size for _, status in entries(root)) / 1e6, 1)


def started_at() -> float:
    """When the image's own process was started."""
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def refused(path: str) -> bool:
    try:
        Path(path).write_text("x")
    except OSError:
        return True
    return False


def uncompiled(module: str) -> list[str]:
    """What Python would have to compile at each start, since it can't write it down."""
    importlib.import_module(f"{module}.__main__")
    found = {name: getattr(loaded, "__cached__", None) for name, loaded in list(sys.modules.items())}
    return sorted(name for name, file in found.items() if file and not Path(file).exists())


def main() -> None:
    capabilities = [line.split()[1] for line in Path("/proc/1/status").read_text().splitlines() if line[:3] == "Cap"]
    seen = {
        "user": os.getuid(),
        "capabilities": capabilities,
        "python": sysconfig.get_python_version(),
        "changeable": [path for path, status in entries("/") if changeable(status)],
        "refuses_writes": all(map(refused, ("/x", "/app/x", "/opt/venv/x", "/usr/local/x"))),
        "programs": [name for name in PROGRAMS if shutil.which(name)],
        "modules": [name for name in [*MODULES, *WEB] if importlib.util.find_spec(name)],
        "uncompiled": uncompiled(sys.argv[1]),
        "megabytes": {"ours": round(megabytes("/app") + megabytes("/opt/venv"), 1), "all": megabytes("/")},
        "started_at": started_at(),
        "command": Path("/proc/1/cmdline").read_bytes().decode().split("\0")[:-1],
    }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
