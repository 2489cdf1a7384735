"""What must hold of Redis at any moment: nothing lives for ever, nothing that PostgreSQL lacks can be evicted.

A key has a time to live, or one of these owners, who deletes it or gives it one:

| key | owner |
|---|---|
| the queue, its bookkeeping, the bell | the worker |
| `wrote` | whoever adds to it |
| `running` | the sweeper of every API process; each member is a response in progress |
| `conv:` | its entries in the queue (`unstored`), or the running turn that holds its lock |
| `items:` | as its `conv:` |
| `resp:` | while in progress the sweeper (a member of `running`), then its own entry in the queue |
| `log:`, `idem:` | the response in progress |
| `unstored:` | the worker, member by member; each is a conversation with entries in the queue |
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from core.entry import Entry, Kind, parse
from core.queue import ACKED, ALONE, ATTEMPTS, BELL, LEASES, META, QUEUE, REPORTS, SESSIONS, WROTE
from tests.waiting import wait_until

WORKERS_OWN = {QUEUE, META, LEASES, SESSIONS, ACKED, ATTEMPTS, ALONE, REPORTS, BELL, WROTE, "running"}
IN_PROGRESS = {"in_progress", "queued"}
FOR_EVER, GONE = -1, -2
HASHES = ("conv", "resp", "idem")


@dataclass(frozen=True, slots=True)
class Picture:
    """Redis at one moment, while nobody writes."""

    entries: list[Entry]
    running: set[str]
    lives: dict[str, int]
    """The seconds that each key lives."""
    hashes: dict[str, dict[str, str]]
    unstored: dict[str, set[str]]
    """The members of each tenant's `unstored:`."""

    def queued(self, tenant: str, conversation: str) -> list[Entry]:
        return [entry for entry in self.entries if (entry.tenant, entry.conversation) == (tenant, conversation)]


async def take_picture(redis: Redis) -> Picture:
    lives, hashes, unstored = {}, {}, {}
    for name in sorted([key.decode() async for key in redis.scan_iter(count=1000)]):
        if (seconds := await redis.ttl(name)) == GONE:
            continue  # since it was listed: it ran out, or the worker took the bell
        lives[name] = seconds
        if name.startswith(HASHES):
            fields = cast("dict[bytes, bytes]", await redis.hgetall(name))
            hashes[name] = {field.decode(): value.decode(errors="replace") for field, value in fields.items()}
        if name.startswith("unstored:"):
            names = cast("list[bytes]", await redis.zrange(name, 0, -1))
            unstored[name.partition(":")[2]] = {member.decode() for member in names}
    entries = cast("list[bytes]", await redis.lrange(QUEUE, 0, -1))
    members = cast("list[bytes]", await redis.zrange("running", 0, -1))
    return Picture(
        [parse(entry) for entry in entries], {member.decode() for member in members}, lives, hashes, unstored
    )


async def violations(redis: Redis) -> list[str]:
    """Every key without time to live and owner, every wrong count, every position out of order."""
    picture = await take_picture(redis)
    found = _disorder(picture.entries)
    for name, lives in picture.lives.items():
        kind, _, rest = name.partition(":")
        if name in WORKERS_OWN:
            sound = lives == FOR_EVER
        elif kind in CHECKS:
            sound = CHECKS[kind](picture, rest)
        else:
            sound = lives != FOR_EVER
        if not sound:
            found.append(f"{name} lives {lives} s: {picture.hashes.get(name)}")
    found += _unlisted(picture)
    for member in picture.running:
        status = picture.hashes.get(f"resp:{member}", {}).get("status")
        if status not in IN_PROGRESS:
            found.append(f"running names {member}, which is {status}")
    return found


async def at_rest(redis: Redis) -> None:
    """Wait until nothing is wrong: the worker goes on meanwhile, and a picture of what moves is blurred."""

    async def sound() -> bool:
        return await violations(redis) == []

    await wait_until(sound, "each key with its owner")


def _disorder(entries: list[Entry]) -> list[str]:
    positions = defaultdict(list)
    items = [entry for entry in entries if entry.kind is Kind.ITEM]
    for entry in items:
        positions[entry.tenant, entry.conversation].append(entry.position)
    times = Counter((entry.tenant, entry.id) for entry in items)
    return [
        *(f"positions of {name} are {line}" for name, line in positions.items() if line != sorted(set(line))),
        *(f"item {name} is queued {count} times" for name, count in times.items() if count > 1),
    ]


def _conversation(picture: Picture, rest: str) -> bool:
    state, tenant, _, own_id = picture.hashes[f"conv:{rest}"], *rest.partition(":")
    queued = picture.queued(tenant, own_id)
    lives_on = picture.lives[f"conv:{rest}"] == FOR_EVER
    if "deleted" in state:
        return lives_on == any(entry.kind is Kind.DELETE_CONVERSATION for entry in queued)
    lock = state.get("lock")
    swept = lock is None or f"{tenant}:{lock}" in picture.running
    return swept and int(state["unstored"]) == len(queued) and lives_on == bool(queued or lock)


# What lists and searches must know of before PostgreSQL does.
LISTED = {Kind.CONVERSATION, Kind.DELETE_CONVERSATION, Kind.ITEM, Kind.DELETE_ITEM}


def _unlisted(picture: Picture) -> list[str]:
    """Conversations with such entries in the queue that their tenant's `unstored:` does not name.

    One that is deleted has no need of it for what was queued before, once the delete is stored.
    """
    found = []
    for entry in picture.entries:
        tenant, name = entry.tenant, entry.conversation
        known = name in picture.unstored.get(tenant, set())
        gone = "deleted" in picture.hashes.get(f"conv:{tenant}:{name}", {})
        matters = entry.kind is Kind.DELETE_CONVERSATION if gone else entry.kind in LISTED
        if matters and not known and name.startswith("conv_"):
            found.append(f"unstored:{tenant} lacks {name}, of which a {entry.kind} is queued")
    return found


def _unstored(picture: Picture, rest: str) -> bool:
    return all(picture.queued(rest, name) for name in picture.unstored[rest])


def _items(picture: Picture, rest: str) -> bool:
    """Redis may evict either key of what is stored, so one may be without the other."""
    return (picture.lives.get(f"conv:{rest}") == FOR_EVER) == (picture.lives[f"items:{rest}"] == FOR_EVER)


def _response(picture: Picture, rest: str) -> bool:
    tenant, _, own_id = rest.partition(":")
    owned = rest in picture.running
    if picture.hashes[f"resp:{rest}"].get("status") not in IN_PROGRESS:
        entries = [entry for entry in picture.entries if (entry.tenant, entry.id) == (tenant, own_id)]
        owned = any(entry.kind in (Kind.RESPONSE, Kind.DELETE_RESPONSE) for entry in entries)
    return owned == (picture.lives[f"resp:{rest}"] == FOR_EVER)


def _log(picture: Picture, rest: str) -> bool:
    return (rest in picture.running) == (picture.lives[f"log:{rest}"] == FOR_EVER)


def _key(picture: Picture, rest: str) -> bool:
    tenant, response = rest.partition(":")[0], picture.hashes[f"idem:{rest}"].get("response")
    return (f"{tenant}:{response}" in picture.running) == (picture.lives[f"idem:{rest}"] == FOR_EVER)


CHECKS: dict[str, Callable[[Picture, str], bool]] = {
    "conv": _conversation,
    "items": _items,
    "resp": _response,
    "log": _log,
    "idem": _key,
    "unstored": _unstored,
}
