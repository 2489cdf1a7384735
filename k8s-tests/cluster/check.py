"""The ledger check: what users were told is in PostgreSQL, exactly once and in order, and nothing else is."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from cluster.kube import CommandError, Namespace
from cluster.release import Release
from cluster.telling import counted
from cluster.town import Town, town_of
from core.queue import QUEUE
from tests.chaos.acts import begin_talk, turn
from tests.chaos.judge import listed
from tests.chaos.said import Damage, answered
from tests.waiting import wait_until

RECOVERY_SECONDS = 120.0
DRAIN_SECONDS = 180.0
# So many conversations are asked for at the API too; all are compared with PostgreSQL.
SHOWN = 3
# An item's text, whichever of the two shapes its content has; a tab and a line's end are in none of ours.
STORED = """
SELECT conversation, coalesce(item->>'role', ''),
       CASE jsonb_typeof(item->'content') WHEN 'string' THEN item->>'content'
            ELSE (SELECT string_agg(part->>'text', '' ORDER BY n)
                    FROM jsonb_array_elements(item->'content') WITH ORDINALITY AS parts (part, n)) END
  FROM items ORDER BY conversation, position
"""


@dataclass(frozen=True, slots=True)
class Stores:
    """The servers behind a release, asked in their own pods, so that the answer does not come through the service."""

    namespace: Namespace
    redis_pod: str
    redis_command: tuple[str, ...]
    postgresql_pod: str
    postgresql_command: tuple[str, ...]

    async def redis(self, *command: str) -> str:
        return (await self.namespace.execute(self.redis_pod, *self.redis_command, *command)).strip()

    async def sql(self, query: str) -> list[list[str]]:
        output = await self.namespace.execute(self.postgresql_pod, *self.postgresql_command, query)
        return [line.split("\t") for line in output.splitlines()]

    async def depth(self) -> int:
        return int(await self.redis("LLEN", QUEUE))

    async def drain(self) -> None:
        async def empty() -> bool:
            try:
                return await self.depth() == 0
            except (CommandError, ValueError):
                # Redis is still about to come back.
                return False

        await wait_until(empty, "the queue to drain", DRAIN_SECONDS)


async def bundled_stores(release: Release) -> Stores:
    secret = await release.namespace.secret(release.full_name)
    redis, postgresql = (release.object_name(component) for component in ("redis", "postgresql"))
    return Stores(
        release.namespace,
        f"{redis}-0",
        ("env", f"REDISCLI_AUTH={secret['redis-password']}", "redis-cli"),
        f"{postgresql}-0",
        ("env", f"PGPASSWORD={secret['postgresql-password']}", *PSQL),
    )


# Tuples only, one a line, with tabs between.
PSQL = ("psql", "-U", "chatbot", "-d", "chatbot", "-AtF", "\t", "-v", "ON_ERROR_STOP=1", "-c")


@asynccontextmanager
async def visit(release: Release, stores: Stores | None = None) -> AsyncIterator[Town]:
    """Users of a release for the length of a scenario, and the ledger check when it went well."""
    async with town_of(release) as town:
        yield town
        await check(town, stores or await bundled_stores(release))


async def check(town: Town, stores: Stores) -> None:
    """Wait until the release is well again, and compare; fails with what was broken."""
    await answer_of(town)
    await stores.drain()
    found = defaultdict(list)
    for conversation, role, text in await stores.sql(STORED):
        found[conversation].append(answered(text) if role == "assistant" else text)
    damage = Damage()
    for talk in town.ledger.talks:
        damage.compare(talk, found.get(talk.conversation, []), set())
    damage.lost += await _lost_responses(town, stores)
    assert not damage, damage
    assert not town.ledger.stale, town.ledger.stale
    assert await stores.sql("SELECT reason FROM dead_letters") == []
    await _shown(town)
    counted("items acknowledged and found in PostgreSQL, once and in order", town.ledger.acknowledged)


async def answer_of(town: Town) -> None:
    """Wait until a turn is acknowledged."""
    talk = None

    async def answers() -> bool:
        nonlocal talk
        try:
            talk = talk or await begin_talk(town, town.door)
        except (AssertionError, aiohttp.ClientError, TimeoutError):
            return False
        return await turn(town, town.door, talk) == 200

    await wait_until(answers, "a turn to be acknowledged", RECOVERY_SECONDS)


async def _lost_responses(town: Town, stores: Stores) -> list[str]:
    stored = {row[0] for row in await stores.sql("SELECT id FROM responses")}
    return [one for talk in town.ledger.talks for one in talk.responses if one not in stored]


async def _shown(town: Town) -> None:
    for talk in town.ledger.talks[-SHOWN:]:
        damage = Damage()
        damage.compare(talk, await listed(town, town.door, talk.conversation) or [], set())
        assert not damage, f"the API shows {talk.conversation} otherwise: {damage}"
