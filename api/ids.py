"""The one maker of ids."""

import secrets
import time


def new_id(prefix: str) -> str:
    """`prefix`, 12 hex digits of the time in ms (so that indexes grow at their end) and 80 random bits."""
    return f"{prefix}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
