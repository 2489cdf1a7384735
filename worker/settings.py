"""The worker's settings, read once at start."""

from dataclasses import dataclass

from core.settings import (
    Environment,
    PostgresSettings,
    RedisSettings,
    TraceSettings,
    expiration_seconds,
    host,
    log_level,
    postgres_settings,
    redis_appendfsync,
    redis_settings,
    trace_settings,
)


@dataclass(frozen=True, slots=True)
class Settings:
    redis: RedisSettings
    redis_appendfsync: str
    postgres: PostgresSettings
    expiration_seconds: int
    log_level: str
    traces: TraceSettings
    host: str
    health_port: int
    batch_entries: int


def read(environment: Environment) -> Settings:
    """Raises SettingsError, which lists everything that is wrong."""
    settings = Settings(
        redis=redis_settings(environment),
        redis_appendfsync=redis_appendfsync(environment),
        postgres=postgres_settings(environment),
        expiration_seconds=expiration_seconds(environment),
        log_level=log_level(environment),
        traces=trace_settings(environment),
        host=host(environment),
        health_port=environment.port("HEALTH_PORT", 9091),
        # KEDA's `listLength` must be larger: the list's length counts what is in flight.
        batch_entries=environment.whole("BATCH_ENTRIES", 2000, 1, 5000),
    )
    environment.check()
    return settings
