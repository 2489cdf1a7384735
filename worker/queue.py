"""The worker's side of the queue: lease a range of offsets, renew it, and acknowledge or release it.

The protocol is docs/adr/0001-queue-protocol.md; each script is one file in scripts/.
"""

import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from core.queue import ACKED, ATTEMPTS, BELL, LEASES, META, QUEUE, Receipt, Script

# A dead worker's range is taken over after this long. The holder renews three times as often, and its PostgreSQL
# session ends by itself before (core/store.py).
LEASE_MS = 15_000
RENEWAL_SECONDS = 5.0
MAX_BYTES = 16 * 1024 * 1024
# KEDA's second trigger: a worker that has just worked is kept for a while.
HOT_SECONDS = 90
# A range that failed this often is halved with each further claim, until one entry is left.
MAX_FAILURES = 3
# And then it is given up, once it has failed so often with nothing else in its worker's hands: a worker that dies for
# another reason takes down all that it holds, and that is no entry's fault.
MAX_FAILURES_ALONE = 2
# Below the socket's time-out: an idle worker also looks for expired leases this often.
IDLE_WAIT_SECONDS = 1

_SCRIPTS = Path(__file__).parent / "scripts"
_claim = Script(_SCRIPTS / "claim.lua", allow_oom=True)
_ack = Script(_SCRIPTS / "ack.lua", allow_oom=True)
_extend = Script(_SCRIPTS / "extend.lua", allow_oom=True)
_release = Script(_SCRIPTS / "release.lua", allow_oom=True)
_try_alone = Script(_SCRIPTS / "try_alone.lua", allow_oom=True)
_replay = Script(_SCRIPTS / "replay.lua", allow_oom=False)

Ids = set[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Lease:
    """Entries with the absolute offsets [first, end) that only the holder of `token` may acknowledge.

    `start` is the offset with which its epoch began, `tail` that behind the queue's last entry at the claim.
    `former` are the PostgreSQL sessions of those who held the range before: a transaction may still be open.
    """

    epoch: int
    start: int
    token: str
    first: int
    end: int
    tail: int
    failures: int
    former: str
    entries: list[bytes]
    asked_ns: int = field(default=0, kw_only=True, compare=False)
    """When the claim went out and when it was answered, in Unix time."""
    claimed_ns: int = field(default=0, kw_only=True, compare=False)

    @property
    def told(self) -> Receipt:
        return Receipt(self.epoch, self.end, self.entries)

    @property
    def suspect(self) -> bool:
        """One entry is left of a range whose holders died."""
        return self.failures >= MAX_FAILURES and len(self.entries) == 1


@dataclass(slots=True)
class Stored:
    """What a stored range means to the hot copies: (tenant, id) each."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Entries per conversation, the dead-lettered ones included."""
    responses: Ids = field(default_factory=set)
    deleted_conversations: Ids = field(default_factory=set)
    deleted_responses: Ids = field(default_factory=set)
    removed_responses: Ids = field(default_factory=set)
    """Responses that went with what was deleted."""
    stale_conversations: Ids = field(default_factory=set)
    """Conversations that inherit from what was deleted, or got back a dead letter."""
    lag_seconds: float = 0.0
    """Since its oldest entry was acknowledged, as far as positions tell."""


def new_token() -> str:
    """Random, and brought by the holder: a counter would repeat after Redis came back from an older copy."""
    return secrets.token_hex(16)


async def claim(redis: Redis, token: str, session: str, max_entries: int) -> Lease | None:
    """Lease the next range for the holder of a PostgreSQL session; None when there is nothing to do.

    The same token gets the same range, so that a claim whose reply was lost leaves none behind.
    """
    asked_ns = time.time_ns()
    reply = await _claim(redis, token, session, LEASE_MS, max_entries, MAX_BYTES, HOT_SECONDS, MAX_FAILURES)
    if len(reply) == 3:
        return None
    epoch, start, tail, first, end, failures, former, entries = reply
    names = int(epoch), int(start), token, first, end, tail
    return Lease(*names, failures, former.decode(), entries, asked_ns=asked_ns, claimed_ns=time.time_ns())


def record_claim(redis: Redis, lease: Lease) -> None:
    """As a part of what is traced now: whether a claim is worth a span is known only when its entries are."""
    _claim.record(redis, lease.asked_ns, lease.claimed_ns)


async def extend(redis: Redis, lease: Lease) -> bool:
    """Renew a lease; False when somebody else has it now."""
    return bool(await _extend(redis, lease.epoch, lease.token, lease.first, lease.end, LEASE_MS))


async def try_alone(redis: Redis, lease: Lease) -> int | None:
    """How often a suspect has failed alone; the try that begins now is noted. None: somebody else has the lease now."""
    failed = await _try_alone(redis, lease.epoch, lease.token, lease.first, lease.end)
    return None if failed is None else int(failed)


async def release(redis: Redis, lease: Lease, *, ended: bool, failed: bool) -> bool:
    """Give a range back for anybody to claim.

    `ended`: its transaction is over for certain. `failed`: the range itself is to blame, as if its holder had died.
    """
    return bool(await _release(redis, lease.epoch, lease.token, lease.first, lease.end, int(ended), int(failed)))


async def ack(redis: Redis, lease: Lease, stored: Stored, expiration_seconds: int) -> bool:
    """Take a range out of the queue after PostgreSQL has committed it.

    False when somebody else has the lease, or when this ack was carried out before and its reply was lost: either way
    there is nothing left to do, for the range is committed.
    """
    arguments: list[str | int] = [len(stored.counts)]
    for (tenant, conversation), count in stored.counts.items():
        arguments += (tenant, conversation, count)
    for ids in (
        stored.responses,
        stored.deleted_conversations,
        stored.deleted_responses,
        stored.removed_responses,
        stored.stale_conversations,
    ):
        arguments.append(len(ids))
        for pair in ids:
            arguments += pair
    lease_arguments = (lease.epoch, lease.token, lease.first, lease.end)
    return bool(await _ack(redis, *lease_arguments, expiration_seconds, *arguments))


async def wait(redis: Redis, seconds: int) -> None:
    """Sleep until somebody rings the bell or the time is over."""
    await redis.blpop([BELL], seconds)


async def replay(redis: Redis, tenant: str, conversation: str, entry: bytes, uncounted: bytes) -> None:
    """Queue a dead letter's entry again; `uncounted` in its place when no hot copy is there to count it."""
    await _replay(redis, tenant, conversation, entry, uncounted)


@dataclass(frozen=True, slots=True)
class Status:
    """Offsets count every entry since the epoch began."""

    epoch: int | None
    depth: int
    head: int
    never_leased: int
    leases: int
    acked_out_of_order: int
    failed_ranges: int


async def status(redis: Redis) -> Status:
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hmget(META, ["epoch", "head", "next"])
        pipeline.llen(QUEUE)
        pipeline.zcard(LEASES)
        pipeline.hlen(ACKED)
        pipeline.hlen(ATTEMPTS)
        (epoch, head, following), depth, leases, acked, failed = await pipeline.execute()
    head, following = int(head or 0), int(following or 0)
    return Status(
        epoch=None if epoch is None else int(epoch),
        depth=depth,
        head=head,
        never_leased=head + depth - max(following, head),
        leases=leases,
        acked_out_of_order=acked,
        failed_ranges=failed,
    )
