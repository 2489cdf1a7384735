"""The one maker of ids, and what every id looks like."""

import os
import re
import time

# The kernel is asked for this many ids' worth of randomness at once: a call of its own per id costs more than the rest.
RANDOM_BYTES = 10
CONVERSATION = "conv_"
# A response without a conversation lives in one of these; it is never named to a client.
THREAD = "thr_"
_pool = bytearray()
_ID = re.compile("[A-Za-z0-9_-]{1,128}")


def _random() -> bytes:
    if len(_pool) < RANDOM_BYTES:
        _pool[:] = os.urandom(RANDOM_BYTES * 256)
    drawn = bytes(_pool[-RANDOM_BYTES:])
    del _pool[-RANDOM_BYTES:]
    return drawn


def new_id(prefix: str) -> str:
    """`prefix`, 12 hex digits of the time in ms (so that indexes grow at their end) and 80 random bits."""
    return f"{prefix}{time.time_ns() // 1_000_000:012x}{_random().hex()}"


def is_id(text: str) -> bool:
    """Whether this could be an id at all. Nothing else is looked up: PostgreSQL takes no NUL, for one."""
    return _ID.fullmatch(text) is not None
