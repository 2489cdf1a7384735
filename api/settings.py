"""The API's settings, read once at start."""

from dataclasses import dataclass
from pathlib import Path

from api.tenants import Callers, KeysFileError, only, read_keys
from api.upstream.file import read_upstreams
from api.upstream.settings import Kind, ProviderSettings, Timeouts, Upstreams, only_upstream
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

OPENAI_URL = "https://api.openai.com/v1"
ECHO = "echo"


@dataclass(frozen=True, slots=True)
class Settings:
    host: str
    port: int
    metrics_port: int
    callers: Callers | None
    """Who may call, as it was at the start; None when `AUTH=none` was said on purpose."""
    keys_file: Path | None
    upstreams: Upstreams
    upstreams_file: str
    """Empty: OPENAI_BASE_URL is the one upstream, or else the built-in model `echo`."""
    model: str
    """Of requests that name none."""
    redis: RedisSettings
    redis_appendfsync: str
    postgres: PostgresSettings
    expiration_seconds: int
    queue_limit: int
    """Entries in the queue at which new work is refused."""
    idempotency_seconds: int
    """How long a repeated request gets the first answer."""
    body_limit_bytes: int
    websocket_seconds: float
    """How long a WebSocket may stay open."""
    slow_client_seconds: float
    """How long a client may leave what was sent to it unread before it is cut off."""
    drain_seconds: float
    """How long running turns may go on after SIGTERM before they are closed as incomplete."""
    log_level: str
    traces: TraceSettings


def read_settings(environment: Environment) -> Settings:
    """Read and check everything; raises SettingsError with all that is wrong."""
    keys_file, callers = _keys(environment)
    upstreams_file = environment.text("UPSTREAMS_FILE")
    upstreams, model = _upstreams(environment, upstreams_file)
    settings = Settings(
        host=host(environment),
        port=environment.port("PORT", 4000),
        metrics_port=environment.port("METRICS_PORT", 9090),
        callers=callers,
        keys_file=keys_file,
        upstreams=upstreams,
        upstreams_file=upstreams_file,
        model=model,
        redis=redis_settings(environment),
        redis_appendfsync=redis_appendfsync(environment),
        postgres=postgres_settings(environment),
        expiration_seconds=expiration_seconds(environment),
        queue_limit=environment.whole("QUEUE_LIMIT", 1_000_000, 1, 100_000_000),
        idempotency_seconds=environment.whole("IDEMPOTENCY_SECONDS", 86_400, 60, 30 * 86_400),
        body_limit_bytes=environment.whole("BODY_LIMIT_BYTES", 10 * 1024 * 1024, 1024, 512 * 1024 * 1024),
        websocket_seconds=environment.seconds("WEBSOCKET_SECONDS", 3600, 1, 86_400),
        slow_client_seconds=environment.seconds("SLOW_CLIENT_SECONDS", 60, 1, 3600),
        drain_seconds=environment.seconds("DRAIN_SECONDS", 30, 0, 3600),
        log_level=log_level(environment),
        traces=trace_settings(environment),
    )
    environment.check()
    return settings


def _keys(environment: Environment) -> tuple[Path | None, Callers | None]:
    """The keys file, if there is one, and the callers that it or `API_KEY` names; None: nobody is asked for a key."""
    api_key, keys_file = environment.text("API_KEY"), environment.text("KEYS_FILE")
    auth = environment.choice("AUTH", "key", ("key", "none"))
    given = [
        name for name, said in (("API_KEY", api_key), ("KEYS_FILE", keys_file), ("AUTH=none", auth == "none")) if said
    ]
    if len(given) > 1:
        environment.errors.append(f"{' and '.join(given)} are set together: set one of them")
    if not given:
        environment.errors.append(
            "API_KEY is missing: set the key that all must send, KEYS_FILE for several, or AUTH=none to ask for none"
        )
    if not keys_file:
        return None, only(api_key) if api_key else None
    try:
        return Path(keys_file), read_keys(Path(keys_file))
    except KeysFileError as error:
        environment.errors.append(f"KEYS_FILE={keys_file} is wrong: {error}")
        return None, None


def _upstreams(environment: Environment, file: str) -> tuple[Upstreams, str]:
    """Who can be asked, and the model of requests that name none."""
    timeouts = _timeouts(environment)
    context_tokens = environment.whole("MODEL_CONTEXT_TOKENS", 0, 1, 2**31 - 1) or None
    if file:
        if context_tokens is not None:
            environment.errors.append(
                "MODEL_CONTEXT_TOKENS and UPSTREAMS_FILE are both set: say context_tokens in the file"
            )
        return _from_file(environment, file, timeouts)
    key = environment.text("OPENAI_API_KEY")
    url = environment.text("OPENAI_BASE_URL", OPENAI_URL if key else "").rstrip("/")
    if url and not url.startswith(("http://", "https://")):
        environment.errors.append(f"OPENAI_BASE_URL={url!r} must start with http:// or https://")
    kind: Kind = "chat_completions" if url else "echo"
    upstreams = only_upstream(ProviderSettings(kind, url, key, timeouts), context_tokens)
    return upstreams, environment.text("MODEL", "gpt-4o-mini" if url else ECHO)


def _timeouts(environment: Environment) -> Timeouts:
    return Timeouts(
        connect=environment.seconds("UPSTREAM_CONNECT_SECONDS", 5, 0.1, 60),
        first_token=environment.seconds("UPSTREAM_FIRST_TOKEN_SECONDS", 60, 0.1, 3600),
        between_tokens=environment.seconds("UPSTREAM_BETWEEN_TOKENS_SECONDS", 30, 0.1, 3600),
        whole=environment.seconds("UPSTREAM_WHOLE_SECONDS", 600, 0.1, 86_400),
    )


def _from_file(environment: Environment, file: str, timeouts: Timeouts) -> tuple[Upstreams, str]:
    if environment.text("OPENAI_BASE_URL"):
        environment.errors.append("OPENAI_BASE_URL and UPSTREAMS_FILE are both set: name that server in the file")
    faults = len(environment.errors)
    upstreams = read_upstreams(file, environment, timeouts)
    model = environment.text("MODEL", upstreams.first_model)
    if len(environment.errors) == faults:
        _check_default(environment, upstreams, model)
    return upstreams, model


def _check_default(environment: Environment, upstreams: Upstreams, model: str) -> None:
    if not upstreams.answers_for(model):
        why = f"MODEL={model!r} is no model of UPSTREAMS_FILE" if model else "MODEL is missing"
        environment.errors.append(f"{why}: requests that name no model are answered by it")


def read_upstreams_again(settings: Settings) -> Upstreams:
    """The file as it is now; raises SettingsError. The model of requests that name none stays what it was."""
    environment = Environment()
    upstreams = read_upstreams(settings.upstreams_file, environment, _timeouts(environment))
    environment.check()
    _check_default(environment, upstreams, settings.model)
    environment.check()
    return upstreams
