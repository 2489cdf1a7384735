"""After a fault: the queue drains, and ledger, PostgreSQL, Redis and the API say the same."""

import re
import time
from collections import defaultdict
from dataclasses import dataclass

import aiohttp
import orjson

from core.entry import Kind, MalformedEntryError, parse
from tests.chaos.acts import begin_talk, turn
from tests.chaos.said import Damage, Talk, text_of
from tests.chaos.scene import Address, Scene
from tests.chaos.stage import Pod, Stage
from tests.entries import TENANT
from tests.ownership import violations
from tests.waiting import wait_until

# So many conversations, drawn by the seed, are asked for at the API too; all are compared with PostgreSQL.
SHOWN = 12
PAGE = 100
RECOVERY_SECONDS = 40.0
REDELIVERED = re.compile(r'"failures":([1-9]\d*)')


@dataclass(frozen=True, slots=True)
class Report:
    """What a fault did to what was acknowledged; `damage` and `complaints` are empty when nothing was broken."""

    operations: int
    acknowledged: int
    damage: Damage
    redelivered: int
    dead_letters: int
    recovery_seconds: float
    complaints: list[str]

    @property
    def sound(self) -> bool:
        return not self.damage and not self.complaints


async def recovered(stage: Stage, pod: Pod) -> None:
    """Wait until a turn succeeds and the queue is empty, and note how long after the fault's end that is."""
    talk = await _new_talk(stage, pod)
    ended = stage.fault_ended_at or time.monotonic()

    async def answered() -> bool:
        return await turn(stage, pod, talk) == 200

    await wait_until(answered, "a turn to be acknowledged", RECOVERY_SECONDS)
    await stage.drain()
    stage.recovery_seconds = time.monotonic() - ended


async def _new_talk(stage: Stage, pod: Pod) -> Talk:
    async def begun() -> Talk | None:
        try:
            return await begin_talk(stage, pod)
        except (AssertionError, aiohttp.ClientError):
            return None

    talk = await wait_until(begun, "a conversation to be made", RECOVERY_SECONDS)
    assert talk is not None
    return talk


async def judge(stage: Stage, pod: Pod) -> Report:
    """`pod` is an API process that lives; a worker must be there to drain the queue."""
    if not stage.recovery_seconds:
        await recovered(stage, pod)
    await stage.drain()
    letters = await stage.dead_letters()
    dead = {text for _, entry in letters for text in _texts_in(entry)}
    damage, stored = Damage(), await _stored(stage)
    for talk in stage.ledger.talks:
        damage.compare(talk, stored.pop(talk.conversation, []), dead)
    # What is left are conversations that nobody was told of.
    known = stage.ledger.others
    damage.resurrected += [name for name in stored if name.startswith("conv_") and name not in known]
    damage.lost += await _lost_responses(stage)
    complaints = [*stage.ledger.stale, *await _complaints(stage, pod, len(letters), dead)]
    ledger = stage.ledger
    return Report(
        ledger.operations,
        ledger.acknowledged,
        damage,
        _redelivered(stage),
        len(letters),
        stage.recovery_seconds,
        complaints,
    )


async def _stored(stage: Stage) -> dict[str, list[str]]:
    found = defaultdict(list)
    async with stage.sql() as connection:
        query = "SELECT conversation, item::text AS item FROM items WHERE tenant = $1 ORDER BY conversation, position"
        for row in await connection.fetch(query, TENANT):
            found[row["conversation"]].append(text_of(row["item"].encode()))
    return found


async def _lost_responses(stage: Stage) -> list[str]:
    told = [one for talk in stage.ledger.talks if talk.deleted is False for one in talk.responses]
    async with stage.sql() as connection:
        query = "SELECT id FROM responses WHERE tenant = $1 AND id = ANY($2::text[])"
        stored = {row["id"] for row in await connection.fetch(query, TENANT, told)}
    return [one for one in told if one not in stored]


def _texts_in(entry: bytes) -> list[str]:
    try:
        parsed = parse(entry)
        return [text_of(parsed.body)] if parsed.kind is Kind.ITEM else []
    except (MalformedEntryError, ValueError, LookupError):
        return []


async def _complaints(stage: Stage, pod: Pod, letters: int, dead: set[str]) -> list[str]:
    complaints = []
    if letters != stage.dead_expected:
        complaints.append(f"{letters} dead letters, {stage.dead_expected} expected")
    lost = await stage.lost_entries()
    if lost != stage.lost_expected:
        complaints.append(f"the service says that it lost {lost} entries, {stage.lost_expected} expected")
    talks = stage.ledger.talks
    for talk in stage.random.sample(talks, min(SHOWN, len(talks))):
        shown = await listed(stage, pod, talk.conversation)
        if talk.deleted is not None and talk.deleted != (shown is None):
            complaints.append(f"{talk.conversation} is {'shown' if talk.deleted else 'gone'}")
        damage = Damage()
        damage.compare(talk, shown or [], dead)
        if damage:
            complaints.append(f"the API shows {talk.conversation} otherwise: {damage}")
    found: list[str] = []

    async def owned() -> bool:
        found[:] = await violations(stage.redis)
        return not found

    try:
        await wait_until(owned, "every key to have an owner or a time to live", 5)
    except AssertionError:
        complaints += found
    return complaints


async def listed(stage: Scene, pod: Address, conversation: str) -> list[str] | None:
    """The texts that the API lists, oldest first; None when it does not know the conversation."""
    texts: list[str] = []
    after = ""
    while True:
        url = f"{pod.url}/conversations/{conversation}/items?order=asc&limit={PAGE}{after}"
        status, page = await stage.call("GET", url)
        if status == 404:
            return None
        assert status == 200, page
        texts += [text_of_item(item) for item in page["data"]]
        if not page["has_more"]:
            return texts
        after = f"&after={page['last_id']}"


def text_of_item(item: dict[str, object]) -> str:
    return text_of(orjson.dumps(item))


def _redelivered(stage: Stage) -> int:
    """Ranges that were stored by somebody else than who claimed them first."""
    logs = stage.folder.glob("worker-*/worker.log")
    return sum(len(REDELIVERED.findall(log.read_text(encoding="utf-8", errors="replace"))) for log in logs)
