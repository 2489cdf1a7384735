"""The span of a range that is carried, linked to the spans that wrote its entries, and one in each of their traces.

So a turn's own trace tells when PostgreSQL had it, and leads to the batch that brought it there.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis

from core import tracing
from core.entry import trace_of
from core.places import Place, read_carried
from core.queue import QUEUE
from worker import queue
from worker.queue import Lease

# Many more come together only after an outage, or where every turn of a busy service is traced.
MOST_LINKS = 64
MESSAGING: tracing.Attributes = {
    "messaging.system": "redis",
    "messaging.destination.name": QUEUE,
    "messaging.operation.type": "process",
}


@contextmanager
def carrying(lease: Lease, redis: Redis) -> Iterator[list[Place]]:
    """What runs in the block is part of the range's span; the spans that wrote its entries, for `committed`."""
    if not tracing.on():
        yield []
        return
    writers = _writers(lease)
    told = {
        **MESSAGING,
        "messaging.operation.name": "process",
        "messaging.batch.message_count": len(lease.entries),
        "chatbot.batch.traced": len(writers),
        "chatbot.batch.failures": lease.failures,
    }
    name = f"process {QUEUE}"
    with tracing.entrance(name, "consumer", told, links=writers[:MOST_LINKS], start_ns=lease.asked_ns):
        queue.record_claim(redis, lease)
        yield writers[:MOST_LINKS]


def committed(lease: Lease, writers: list[Place]) -> None:
    """Tell the traces of its entries that PostgreSQL has them."""
    batch = tracing.here()
    if batch is None:
        return
    told = {**MESSAGING, "messaging.operation.name": "store", "chatbot.batch.failures": lease.failures}
    for writer in writers:
        with tracing.under(writer):
            tracing.record(f"store {QUEUE}", "consumer", told, start_ns=lease.asked_ns, links=[batch])


def _writers(lease: Lease) -> list[Place]:
    marks = filter(None, map(trace_of, lease.entries))
    return [place for mark in marks if (place := read_carried(mark)) is not None]
