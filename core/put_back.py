"""Brings what a process remembers back into a Redis that lacks it (docs/adr/0007-epochs.md)."""

from pathlib import Path

from redis.asyncio import Redis

from core.queue import Epoch, Receipt, Script, receipt

_put_back = Script(Path(__file__).parent / "scripts" / "put_back.lua", allow_oom=True)
# Per call: Redis serves nobody else meanwhile, and one that takes longer than the socket's time-out is sent again.
ENTRIES = 100
BYTES = 1024 * 1024


async def put_back(redis: Redis, told: Receipt, start: int, found: Epoch, token: str) -> tuple[list[Receipt], int]:
    """Queue again what Redis lacks, in the epoch `found`, of what it told of in an earlier one, and show it to readers.

    `start` is the offset with which that one began. Answers where all of it stands now, and how much was missing.
    """
    has = max(0, found.ends.get(told.epoch, told.first) - told.first)
    known, missing = told.entries[:has], told.entries[has:]
    stands = [Receipt(found.number, told.first + len(known), known)] if known else []
    chunk: list[bytes] = []
    for index, entry in enumerate(missing, 1):
        chunk.append(entry)
        if index == len(missing) or len(chunk) == ENTRIES or sum(map(len, chunk)) >= BYTES:
            first = told.end - len(missing) + index - len(chunk)
            stands.append(receipt([*await _put_back(redis, told.epoch, start, first, token, *chunk), chunk]))
            chunk = []
    return stands, len(missing)
