"""The file that names providers and models (docs/upstreams.md), read and checked as a whole."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from api.upstream.settings import (
    ANY_MODEL,
    DEFAULT_RETRIES,
    LONGEST_MODEL,
    BreakerSettings,
    Kind,
    ModelSettings,
    Part,
    ProviderSettings,
    Timeouts,
    Upstreams,
)
from core.settings import Environment

# It is a label of metrics.
PROVIDER_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Table = dict[str, Any]
# The same limits as the settings UPSTREAM_…_SECONDS, which hold where the file says nothing.
ConnectSeconds = Annotated[float, Field(ge=0.1, le=60)]
TokenSeconds = Annotated[float, Field(ge=0.1, le=3600)]
WholeSeconds = Annotated[float, Field(ge=0.1, le=86_400)]


class _Provider(Part):
    kind: Kind = "chat_completions"
    base_url: str = ""
    key_env: str = ""
    key_file: str = ""
    connect_seconds: ConnectSeconds | None = None
    first_token_seconds: TokenSeconds | None = None
    between_tokens_seconds: TokenSeconds | None = None
    whole_seconds: WholeSeconds | None = None
    retries: Annotated[int, Field(ge=0, le=10)] = DEFAULT_RETRIES
    concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    breaker_failures: Annotated[int, Field(ge=0, le=1000)] = 5
    breaker_window_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    breaker_open_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 15.0


P = TypeVar("P", bound=Part)


def read_upstreams(path: str, environment: Environment, timeouts: Timeouts) -> Upstreams:
    """What the file says, and the keys that it names; every fault goes to the environment's errors with its place."""
    faults = _Faults(f"UPSTREAMS_FILE={path}", environment.errors)
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        faults.add("", f"can't be read: {error.__class__.__name__}")
        return Upstreams({}, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # A decoder of TOML tells the place and not the text, which could be a key.
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
        faults.add("", f"is not TOML: {why}")
        return Upstreams({}, {})
    for name in content.keys() - {"providers", "models"}:
        faults.add(name, "is unknown here; the file has the tables 'providers' and 'models'")
    providers = faults.tables(content, "providers", _Provider)
    models = faults.tables(content, "models", ModelSettings)
    made = {name: _settings(name, one, environment, timeouts, faults) for name, one in providers.items()}
    _check_names(content, faults)
    _check_models(content, models, faults)
    key_files = {Path(one.key_file) for one in providers.values() if one.key_file}
    return Upstreams(made, models, (Path(path), *sorted(key_files)))


class _Faults:
    def __init__(self, file: str, errors: list[str]) -> None:
        self._file = file
        self._errors = errors

    def add(self, place: str, what: str) -> None:
        self._errors.append(f"{self._file}: {place} {what}" if place else f"{self._file} {what}")

    def tables(self, content: Table, name: str, kind: type[P]) -> dict[str, P]:
        """The tables `name`.X without what is faulty in them, which is told."""
        given = content.get(name)
        if not isinstance(given, Mapping) or not given:
            self.add(name, f"is missing: at least one table [{name}.NAME]")
            return {}
        return {key: self._table(f"{name}.{key}", table, kind) for key, table in given.items()}

    def _table(self, place: str, table: object, kind: type[P]) -> P:
        try:
            return kind.model_validate(table)
        except ValidationError as error:
            # Without the input: it may be a key in the wrong place.
            faults = error.errors(include_url=False, include_context=False, include_input=False)
        for fault in faults:
            self.add(place + _path(fault["loc"]), _words(fault["type"], fault["msg"]))
        faulty = {fault["loc"][0] for fault in faults if fault["loc"]}
        # Every field has a default, so what is left is sound, and what is wrong beyond single fields is told as well.
        sound = table.items() if isinstance(table, dict) else ()
        return kind.model_validate({key: value for key, value in sound if key not in faulty})


def _path(place: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _words(kind: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "is unknown here"
        case "missing":
            return "is missing"
        case _:
            return re.sub("^.*? should", "should", message).replace(" after validation", "")


def _settings(
    name: str, given: _Provider, environment: Environment, timeouts: Timeouts, faults: _Faults
) -> ProviderSettings:
    place = f"providers.{name}"
    _check_url(place, given, faults)
    return ProviderSettings(
        given.kind,
        given.base_url.rstrip("/"),
        _key(place, given, environment, faults),
        Timeouts(
            given.connect_seconds or timeouts.connect,
            given.first_token_seconds or timeouts.first_token,
            given.between_tokens_seconds or timeouts.between_tokens,
            given.whole_seconds or timeouts.whole,
        ),
        given.retries,
        given.concurrent_requests,
        given.wait_seconds,
        BreakerSettings(given.breaker_failures, given.breaker_window_seconds, given.breaker_open_seconds),
    )


def _check_url(place: str, given: _Provider, faults: _Faults) -> None:
    if given.kind == "echo":
        for name in ("base_url", "key_env", "key_file"):
            if getattr(given, name):
                faults.add(f"{place}.{name}", "is not for the kind 'echo', which is built in")
        return
    try:
        url = urlsplit(given.base_url)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        sound = False
    if not sound:
        faults.add(f"{place}.base_url", "must be the provider's URL, such as https://api.openai.com/v1")
    elif url.username or url.password or url.query or url.fragment:
        faults.add(f"{place}.base_url", "must hold no password, query or fragment; key_env or key_file names the key")


def _key(place: str, given: _Provider, environment: Environment, faults: _Faults) -> str:
    if given.key_env and given.key_file:
        faults.add(place, "has both key_env and key_file: say one of them")
    elif given.key_env:
        if key := environment.text(given.key_env):
            return key
        faults.add(f"{place}.key_env", "names a setting that is not set")
    elif given.key_file:
        try:
            if key := Path(given.key_file).read_text(encoding="utf-8").strip():
                return key
            faults.add(f"{place}.key_file", "names a file that is empty")
        except (OSError, UnicodeDecodeError) as error:
            faults.add(f"{place}.key_file", f"names a file that can't be read: {error.__class__.__name__}")
    return ""


def _check_names(content: Table, faults: _Faults) -> None:
    for name in _names(content, "providers"):
        if not PROVIDER_NAME.fullmatch(name):
            faults.add(f"providers.{name}", "must be a name of up to 64 letters, digits, '.', '_' and '-'")
    for name in _names(content, "models"):
        if not 0 < len(name) <= LONGEST_MODEL:
            faults.add(f"models.{name}", f"must be a name of 1 to {LONGEST_MODEL} characters")


def _names(content: Table, name: str) -> list[str]:
    """Also of faulty tables."""
    given = content.get(name)
    return list(given) if isinstance(given, Mapping) else []


def _check_models(content: Table, models: dict[str, ModelSettings], faults: _Faults) -> None:
    """What one table says of another."""
    providers = _names(content, "providers")
    taken = dict.fromkeys(models, "a model")
    for name, model in models.items():
        place = f"models.{name}"
        if isinstance(table := content["models"][name], Mapping) and not table.get("targets"):
            faults.add(f"{place}.targets", "must name one provider at least")
        for index, target in enumerate(model.targets):
            if target.provider not in providers:
                faults.add(f"{place}.targets[{index}].provider", f"must be one of {', '.join(providers)}")
        for index, alias in enumerate(model.aliases):
            if ANY_MODEL in (name, alias):
                faults.add(f"{place}.aliases[{index}]", f"can't be: '{ANY_MODEL}' stands for every other name already")
            elif alias in taken:
                faults.add(f"{place}.aliases[{index}]", f"'{alias}' is the name of {taken[alias]} already")
            else:
                taken[alias] = f"an alias of {name}"
