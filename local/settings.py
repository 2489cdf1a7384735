"""What this run is made of: the folder, the ports, which stores are embedded, and the environment of our processes."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api import settings as api_settings
from core.settings import Environment, SettingsError
from local.children import HOST, free_port
from local.embedded import DATABASE, USER
from local.parts import ROOT
from worker import settings as worker_settings

ENV_FILE = Path(".env")
# What describes a store that is not embedded; none of it may reach the embedded one.
REDIS_NAMES = ("REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_TLS", "REDIS_TLS_CA")
POSTGRES_NAMES = ("PG_HOST", "PG_PORT", "PG_USER", "PG_PASSWORD", "PG_DATABASE", "PG_TLS", "PG_TLS_CA")


class PortTakenError(Exception):
    """Another program listens on a port that was asked for."""


@dataclass(frozen=True, slots=True)
class Settings:
    data: Path
    environment: dict[str, str]
    """Of the api's and the worker's process, complete."""
    api: api_settings.Settings
    health_port: int
    valkey_port: int | None
    """None: REDIS_HOST names the server to use."""
    postgres_port: int | None

    @property
    def logs(self) -> Path:
        return self.data / "logs"


def variables() -> dict[str, str]:
    """The environment, on top of the lines `NAME=VALUE` of the file `.env`."""
    lines = ENV_FILE.read_text(encoding="utf-8").splitlines() if ENV_FILE.exists() else []
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, separator, value in pairs if separator} | dict(os.environ)


def data_folder(given: Mapping[str, str]) -> Path:
    return (ROOT / (given.get("DATA_FOLDER") or ".data")).resolve()


def read_settings(given: Mapping[str, str]) -> Settings:
    """Choose what was left open and check all of it; raises SettingsError like the processes themselves would."""
    data = data_folder(given)
    kept = _kept_ports(data)
    environment = {**given, "HOST": HOST}
    valkey_port = postgres_port = None
    if not _is_set(given, "REDIS_HOST"):
        valkey_port = kept["valkey"] = _still_free(kept.get("valkey"))
        _replace(environment, REDIS_NAMES, {"REDIS_HOST": HOST, "REDIS_PORT": str(valkey_port)})
    if not _is_set(given, "PG_HOST"):
        postgres_port = kept["postgres"] = _still_free(kept.get("postgres"))
        names = {"PG_HOST": HOST, "PG_PORT": str(postgres_port), "PG_USER": USER, "PG_DATABASE": DATABASE}
        _replace(environment, POSTGRES_NAMES, names)
    if not any(_is_set(given, name) for name in ("AUTH", "API_KEY", "KEYS_FILE")):
        environment["AUTH"] = "none"
    for name, usual in (("METRICS_PORT", 9090), ("HEALTH_PORT", 9091)):
        if not _is_set(given, name):  # nobody asked for this very port, so another program may have it
            environment[name] = str(_still_free(usual))
    api, worker = _both(environment)
    _require_free(api.port, "PORT")
    _require_free(api.metrics_port, "METRICS_PORT")
    _require_free(worker.health_port, "HEALTH_PORT")
    (data / "ports.json").write_text(json.dumps(kept), encoding="utf-8")
    return Settings(data, environment, api, worker.health_port, valkey_port, postgres_port)


def _both(environment: Mapping[str, str]) -> tuple[api_settings.Settings, worker_settings.Settings]:
    """Read both processes' settings; what is wrong for both is told once."""
    first, second = Environment(environment), Environment(environment)
    try:
        return api_settings.read_settings(first), worker_settings.read(second)
    except SettingsError:
        with contextlib.suppress(SettingsError):
            worker_settings.read(second)
        raise SettingsError("\n".join(dict.fromkeys(first.errors + second.errors))) from None


def _is_set(given: Mapping[str, str], name: str) -> bool:
    return bool(given.get(name) or given.get(f"{name}_FILE"))


def _replace(environment: dict[str, str], names: tuple[str, ...], values: Mapping[str, str]) -> None:
    for name in names:
        environment.pop(name, None)
        environment.pop(f"{name}_FILE", None)
    environment.update(values)


def _kept_ports(data: Path) -> dict[str, int]:
    """The stores keep their ports from run to run, so that a connect line stays true."""
    try:
        ports = json.loads((data / "ports.json").read_text(encoding="utf-8"))
        return {name: port for name, port in ports.items() if isinstance(port, int)}
    except (OSError, ValueError):
        return {}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _still_free(port: int | None) -> int:
    return port if port and _is_free(port) else free_port()


def _require_free(port: int, name: str) -> None:
    if not _is_free(port):
        raise PortTakenError(
            f"port {port} is in use: end the program that listens there, or choose another port: {name}={port + 1}"
        )
