"""The one maker of ids."""

import os
import time

# The kernel is asked for this many ids' worth of randomness at once: a call of its own per id costs more than the rest.
RANDOM_BYTES = 10
_pool = bytearray()


def _random() -> bytes:
    if len(_pool) < RANDOM_BYTES:
        _pool[:] = os.urandom(RANDOM_BYTES * 256)
    drawn = bytes(_pool[-RANDOM_BYTES:])
    del _pool[-RANDOM_BYTES:]
    return drawn


def new_id(prefix: str) -> str:
    """`prefix`, 12 hex digits of the time in ms (so that indexes grow at their end) and 80 random bits."""
    return f"{prefix}{time.time_ns() // 1_000_000:012x}{_random().hex()}"
