"""Who may call: API keys, the tenant that each belongs to, and what it may do.

Keys are known by their SHA-256 only. They have 256 random bits, so nothing slower is needed, and a look-up by the
digest tells nothing in the time that it takes.
"""

import asyncio
import hashlib
import logging
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api import metrics
from api.rates import NO_LIMITS, UNLIMITED, Allowance, Limits

log = logging.getLogger(__name__)

# How soon a change of the file counts. That of a Secret needs a minute or more to arrive in the file.
LOOK_SECONDS = 2.0
# Where there is no file: version 1 of every key and row has a tenant all the same.
DEFAULT_TENANT = "default"

Scope = Literal["read", "write"]
EVERYTHING: frozenset[Scope] = frozenset(("read", "write"))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `key` is the name of its API key, which may be told to operators."""

    tenant: str
    key: str
    scopes: frozenset[Scope] = EVERYTHING
    limits: Limits = NO_LIMITS
    allowance: Allowance = UNLIMITED
    """Of this very request."""

    def asking(self) -> "Caller":
        """The same for one request; whoever has no limits needs no object of its own."""
        return self if self.limits == NO_LIMITS else replace(self, allowance=Allowance(self.limits))


Callers = dict[bytes, Caller]
"""By the SHA-256 of their key."""

ANYBODY = Caller(DEFAULT_TENANT, "")


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def only(api_key: str) -> Callers:
    return {digest(api_key.encode()): Caller(DEFAULT_TENANT, "API_KEY")}


# Part of Redis's keys and of the queue's headers, between colons and between spaces.
Name = Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]


class Key(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    tenant: Name
    name: Name
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)] = sorted(EVERYTHING)


Limit = Annotated[int, Field(ge=1, le=10**12)]


class _Tenant(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None

    def limits(self) -> Limits:
        return Limits(self.requests_per_minute or 0, self.tokens_per_minute or 0)


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    keys: Annotated[list[Key], Field(min_length=1)]
    tenants: dict[Name, _Tenant] = {}


class KeysFileError(ValueError):
    """What is wrong with a keys file, in words; it shows nothing of what stands there, for that may be a key."""


def read_keys(path: Path) -> Callers:
    """Raises KeysFileError."""
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise KeysFileError(f"it can't be read: {error.__class__.__name__}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise KeysFileError(f"'{'.'.join(map(str, first['loc']))}': {first['msg']}") from None
    except ValueError:  # no UTF-8, or no TOML; the decoder's own words may quote the file
        raise KeysFileError("it is not TOML") from None
    limits = {tenant: limited.limits() for tenant, limited in found.tenants.items()}
    if limits.keys() - {key.tenant for key in found.keys}:
        raise KeysFileError("one of its tenants has limits, but no key")
    callers = {
        bytes.fromhex(key.sha256): Caller(
            key.tenant, key.name, frozenset(key.scopes), limits.get(key.tenant, NO_LIMITS)
        )
        for key in found.keys
    }
    names = {(key.tenant, key.name) for key in found.keys}
    if len(callers) < len(found.keys) or len(names) < len(found.keys):
        raise KeysFileError("two of its keys are the same, or have the same name")
    return callers


@dataclass(slots=True)
class Keyring:
    """The callers as the file has them by now; `callers` None: nobody is asked for a key."""

    callers: Callers | None
    path: Path | None = None
    _seen: tuple[int, ...] = ()

    def find(self, authorization: bytes) -> Caller | None:
        """Who sends this header; None: nobody that we know."""
        if self.callers is None:
            return ANYBODY
        scheme, _, key = authorization.partition(b" ")
        return self.callers.get(digest(key)) if scheme.lower() == b"bearer" else None

    async def watch(self) -> None:
        """Read the file again whenever it has changed, for as long as the process lives. A bad one changes nothing."""
        while self.path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._read(self.path)

    def _read(self, path: Path) -> None:
        try:
            self.callers = read_keys(path)
        except KeysFileError as error:
            metrics.KEYS_FILE_SOUND.set(0)
            log.error("the keys file is wrong, the keys of before stay", extra={"why": str(error)})  # noqa: TRY400
        else:
            metrics.KEYS_FILE_SOUND.set(1)
            log.info("keys read", extra={"keys": len(self.callers)})

    def _look(self) -> tuple[int, ...]:
        """What changes with the file: Kubernetes swaps a symbolic link to another file, others write into this one."""
        try:
            found = self.path.stat() if self.path else None
        except OSError:
            found = None
        return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size) if found else ()
