"""Reading settings from the environment: every mistake is collected and told at once, before anything starts."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import TypeVar

from core import tls

N = TypeVar("N", int, float)

SAMPLERS = tuple(
    f"{parent}{root}" for parent in ("parentbased_", "") for root in ("always_on", "always_off", "traceidratio")
)
HEADER = re.compile(r"\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*=[^\x00-\x1f\",;\\\x7f-\U0010ffff]*")
# OpenTelemetry's older and newer words.
WITH_CONTENT = ("true", "span_only", "span_and_event")


class SettingsError(Exception):
    """Settings are missing or wrong; the message lists every one of them with what it should be."""


class Environment:
    """Reads typed settings and remembers what was wrong. `X_FILE` names a file that holds the value of `X`."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.errors: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        value, file = self._variables.get(name), self._variables.get(f"{name}_FILE")
        if not file:
            return default if value is None or value == "" else value
        if value:
            self.errors.append(f"{name} and {name}_FILE are both set: set one of them")
            return default
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            self.errors.append(f"{name}_FILE={file} can't be read: {error.__class__.__name__}")
            return default

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        return self._parsed(name, default, int, low, high, "a whole number")

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        return self._parsed(name, default, float, low, high, "a number of seconds")

    def fraction(self, name: str, default: float) -> float:
        return self._parsed(name, default, float, 0, 1, "a number")

    def port(self, name: str, default: int) -> int:
        return self.whole(name, default, 1, 65535)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            self.errors.append(f"{name}={value!r} must be one of {', '.join(choices)}")
            return default
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        return self.choice(name, "true" if default else "false", ("true", "false")) == "true"

    def _parsed(self, name: str, default: N, parse: Callable[[str], N], low: float, high: float, kind: str) -> N:
        value = self.text(name)
        if not value:
            return default
        try:
            number = parse(value)
            if low <= number <= high:
                return number
        except ValueError:
            pass
        self.errors.append(f"{name}={value!r} must be {kind} from {low} to {high}")
        return default

    def check(self) -> None:
        if self.errors:
            raise SettingsError("\n".join(self.errors))


@dataclass(frozen=True, slots=True)
class RedisSettings:
    host: str
    port: int
    username: str
    password: str
    tls: SSLContext | None = None


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    host: str
    port: int
    user: str
    password: str
    database: str
    tls: SSLContext | None = None


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """OpenTelemetry's own variables. An empty `endpoint`: nothing is traced, and the others are not looked at."""

    endpoint: str = ""
    headers: str = field(default="", repr=False)
    service: str = ""
    resource: str = ""
    sampler: str = "parentbased_always_on"
    ratio: float = 1.0
    content: bool = False
    """Whether the spans of models have what was said."""


def redis_settings(environment: Environment) -> RedisSettings:
    return RedisSettings(
        host=environment.text("REDIS_HOST", "127.0.0.1"),
        port=environment.port("REDIS_PORT", 6379),
        username=environment.text("REDIS_USERNAME"),
        password=environment.text("REDIS_PASSWORD"),
        tls=_redis_tls(environment),
    )


def _redis_tls(environment: Environment) -> SSLContext | None:
    wanted, authorities = environment.flag("REDIS_TLS"), environment.text("REDIS_TLS_CA")
    if wanted:
        return _verifying(environment, "REDIS_TLS_CA", authorities)
    if authorities:
        environment.errors.append("REDIS_TLS_CA is set without REDIS_TLS=true: nothing would be checked against it")
    return None


def _verifying(environment: Environment, name: str, authorities: str) -> SSLContext | None:
    try:
        return tls.verifying(authorities)
    except ValueError as error:
        environment.errors.append(f"{name} is wrong: {error}; it takes the text of a file that begins -----BEGIN")
        return None


def redis_appendfsync(environment: Environment) -> str:
    """How Redis must sync its file: `everysec` accepts the loss of the last seconds before a crash of Redis."""
    return environment.choice("REDIS_APPENDFSYNC", "always", ("always", "everysec"))


def postgres_settings(environment: Environment) -> PostgresSettings:
    return PostgresSettings(
        host=environment.text("PG_HOST", "127.0.0.1"),
        port=environment.port("PG_PORT", 5432),
        user=environment.text("PG_USER", "chatbot"),
        password=environment.text("PG_PASSWORD"),
        database=environment.text("PG_DATABASE", "chatbot"),
        tls=_postgres_tls(environment),
    )


def _postgres_tls(environment: Environment) -> SSLContext | None:
    mode = environment.choice("PG_TLS", "disable", ("disable", "require", "verify-full"))
    authorities = environment.text("PG_TLS_CA")
    if mode == "verify-full":
        return _verifying(environment, "PG_TLS_CA", authorities)
    if authorities:
        environment.errors.append(f"PG_TLS_CA is set with PG_TLS={mode}: only verify-full checks anything against it")
    return tls.unverified() if mode == "require" else None


def host(environment: Environment) -> str:
    """The address to listen on: in a pod every one, for the kubelet and Prometheus come from outside."""
    return environment.text("HOST", "0.0.0.0")  # noqa: S104


def expiration_seconds(environment: Environment) -> int:
    """How long a stored conversation stays hot after its last change."""
    return environment.whole("EXPIRATION_TIME", 1800, 1, 30 * 86400)


def log_level(environment: Environment) -> str:
    return environment.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))


def trace_settings(environment: Environment) -> TraceSettings:
    own, base = environment.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), environment.text("OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = own or (f"{base.rstrip('/')}/v1/traces" if base else "")
    if not endpoint or environment.text("OTEL_SDK_DISABLED").lower() == "true":
        return TraceSettings()
    if not endpoint.startswith(("http://", "https://")):
        environment.errors.append(f"OTEL_EXPORTER_OTLP_ENDPOINT={endpoint!r} must start with http:// or https://")
    environment.choice("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", ("http/protobuf",))
    headers = environment.text("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environment.text("OTEL_EXPORTER_OTLP_HEADERS")
    if not all(HEADER.fullmatch(pair) for pair in headers.split(",") if pair.strip()):
        environment.errors.append("OTEL_EXPORTER_OTLP_HEADERS must be name=value,name=value")  # and nobody's secret
    return TraceSettings(
        endpoint,
        headers,
        environment.text("OTEL_SERVICE_NAME"),
        environment.text("OTEL_RESOURCE_ATTRIBUTES"),
        environment.choice("OTEL_TRACES_SAMPLER", "parentbased_always_on", SAMPLERS),
        environment.fraction("OTEL_TRACES_SAMPLER_ARG", 1),
        environment.text("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT").lower() in WITH_CONTENT,
    )


def report(error: SettingsError) -> str:
    """The one message that an operator sees when a process refuses to start; the process then exits with status 2."""
    return "settings are wrong:\n" + "".join(f"  {line}\n" for line in str(error).splitlines())
