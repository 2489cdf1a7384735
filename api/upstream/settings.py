"""What is configured of providers and models, by the file or by a few settings of the environment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# The model of this name stands for every name that is not configured.
ANY_MODEL = "*"
# What a request may name.
LONGEST_MODEL = 256
MOST_TARGETS = 16
DEFAULT_RETRIES = 2

Kind = Literal["chat_completions", "responses", "echo"]
ModelName = Annotated[str, Field(min_length=1, max_length=LONGEST_MODEL)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Part(BaseModel):
    """A table of the file. Every field has a default, so that the sound part of a faulty table can be checked too."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class TargetSettings(Part):
    provider: str = ""
    model: Annotated[str, Field(max_length=LONGEST_MODEL)] = ""
    """What this provider calls the model; empty: the same name."""


class ModelSettings(Part):
    targets: Annotated[list[TargetSettings], Field(max_length=MOST_TARGETS)] = []
    aliases: list[ModelName] = []
    context_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. A `complete` waits `whole` for its one answer, for nothing tells that the model is at work."""

    connect: float = 5.0
    first_token: float = 60.0
    between_tokens: float = 30.0
    whole: float = 600.0


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """`failures` in a row within `window_seconds` open it for `open_seconds`; 0 failures: it never opens."""

    failures: int = 0
    window_seconds: float = 30.0
    open_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    kind: Kind
    base_url: str = ""
    key: str = field(default="", repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = DEFAULT_RETRIES
    concurrent_requests: int | None = None
    """Requests of this process at a time; None: as many as come."""
    wait_seconds: float = 1.0
    """How long a request waits for its place among them."""
    breaker: BreakerSettings = field(default_factory=BreakerSettings)


@dataclass(frozen=True, slots=True)
class Upstreams:
    """All that can be asked: providers by name, models by public name, in the order of the file."""

    providers: dict[str, ProviderSettings]
    models: dict[str, ModelSettings]
    files: tuple[Path, ...] = ()
    """What it was read from: the file and those of keys."""

    def answers_for(self, model: str) -> bool:
        named = {name for public, one in self.models.items() for name in (public, *one.aliases)}
        return bool(model) and model != ANY_MODEL and (model in named or ANY_MODEL in named)

    @property
    def first_model(self) -> str:
        """Empty when there is no name but `*`."""
        return next((name for name in self.models if name != ANY_MODEL), "")


def only_upstream(provider: ProviderSettings, context_tokens: int | None = None) -> Upstreams:
    """One provider, which is asked for whatever model a client names: what there is without a file."""
    target = TargetSettings(provider="upstream")
    return Upstreams(
        {"upstream": provider}, {ANY_MODEL: ModelSettings(targets=[target], context_tokens=context_tokens)}
    )
