"""What makes a request the repetition of another one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key, empty without one, and the hash of its request: only the very same one is a repetition."""

    key: str
    request_hash: str
    seconds: int
    """How long the key is kept after the request was answered."""


NOT_IDEMPOTENT = Idempotency("", "", 0)
