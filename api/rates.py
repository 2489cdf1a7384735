"""Requests and tokens per minute: what a tenant may ask for, what is left of it, and how a client is told."""

import math
from dataclasses import dataclass

from api import errors, metrics
from api.errors import ApiError

WINDOW_SECONDS = 60
"""Both limits are per minute."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Per minute; 0: as many as there are."""

    requests: int
    tokens: int


NO_LIMITS = Limits(0, 0)


@dataclass(slots=True, eq=False)
class Allowance:
    """The limits that hold for one request, and what they had left when it was counted (api/scripts/rates.lua)."""

    limits: Limits
    requests_left: float = 0.0
    tokens_left: float = 0.0
    counted: bool = False

    @property
    def limited(self) -> bool:
        return self.limits.requests > 0 or self.limits.tokens > 0

    def note(self, left: bytes) -> None:
        """Keep what the script told; it tells nothing where there is no limit, and nothing again."""
        if left:
            requests, tokens = left.split()
            self.requests_left, self.tokens_left, self.counted = float(requests), float(tokens), True

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-*`, once the request was counted."""
        if not self.counted:
            return []
        return [
            (f"x-ratelimit-{name}-{kind}".encode(), value.encode())
            for kind, limit, left in self._buckets()
            for name, value in (
                ("limit", str(limit)),
                ("remaining", str(max(0, math.floor(left)))),
                ("reset", duration((limit - left) * WINDOW_SECONDS / limit)),
            )
        ]

    def refusal(self, tenant: str, wanted_tokens: int) -> ApiError:
        """What a client is told that must wait for one request and so many tokens."""
        wanted = {"requests": 1, "tokens": wanted_tokens}
        seconds, kind, limit = max(
            ((min(wanted[kind], limit) - left) * WINDOW_SECONDS / limit, kind, limit)
            for kind, limit, left in self._buckets()
        )
        metrics.RATE_LIMITED.labels(tenant, kind).inc()
        return errors.rate_limited(kind, limit, max(seconds, 0.001), duration(seconds))

    def _buckets(self) -> list[tuple[str, int, float]]:
        """(kind, limit, what is left) of each that is limited."""
        both = (
            ("requests", self.limits.requests, self.requests_left),
            ("tokens", self.limits.tokens, self.tokens_left),
        )
        return [bucket for bucket in both if bucket[1] > 0]


UNLIMITED = Allowance(NO_LIMITS)


def duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `8.64s`, `6m0s`."""
    milliseconds = max(0, math.ceil(seconds * 1000))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest // 1000}s" if minutes else f"{rest / 1000:g}s"
