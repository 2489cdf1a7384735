"""The campaign's checker sees it when a guarantee is taken out of the product, and only then.

Each scenario is played twice: with a copy of the product that lacks one guarantee, and with the product as it is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from core.queue import Script
from local.parts import ROOT
from tests.chaos.broken import Change, broken_tree
from tests.chaos.faults_redis import power_cut
from tests.chaos.judge import judge, listed
from tests.chaos.said import Talk
from tests.chaos.stage import Needs, Pod, Stage, held, stage_on
from tests.chaos.streams import streamed_turn
from tests.chaos.users import append, begin_talk, load
from tests.entries import TENANT, push
from tests.running import Postgres
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# Found at once or not at all.
DRAIN_SECONDS = 20.0
Scenario = Callable[[Stage], Awaitable[Pod]]
"""The process that is asked in the end."""


@dataclass(frozen=True, slots=True)
class Bite:
    play: Scenario
    changes: tuple[Change, ...] = ()
    needs: Needs = field(default_factory=Needs)
    broken_settings: tuple[tuple[str, str], ...] = ()


BITES: dict[str, Bite] = {}


def bite(
    name: str, *changes: Change, shim: bool = False, redis: tuple[tuple[str, str], ...] = ()
) -> Callable[[Scenario], Scenario]:
    """What is changed to take the guarantee out: the product, or Redis's settings."""

    def keep(play: Scenario) -> Scenario:
        BITES[name] = Bite(play, changes, Needs(shim=shim), redis)
        return play

    return keep


@bite("everysec instead of always", shim=True, redis=(("appendfsync", "everysec"),))
async def everysec(stage: Stage) -> Pod:
    """While a sync in the background is slow, Redis puts off even its writes; and nobody is left who remembers."""
    often = {"REDIS_APPENDFSYNC": "everysec"}
    api = await stage.api(**often)
    await stage.worker(**often)
    stage.knobs.slow_fsync(1.0 if stage.redis_settings["appendfsync"] == "everysec" else 0.01)
    async with load(stage, api, users=8) as users:
        for _ in range(3):
            await users.more(500)
            await power_cut(stage, [api], also=True)
    stage.knobs.slow_fsync(0)
    # What went with the last second is counted where somebody knows of it; here it must not have gone at all.
    return api


HOLDER = "if redis.call('HGET', META, 'epoch') ~= epoch or not redis.call('ZSCORE', LEASES, member) then return 0 end"


def script_of(stage: Stage, path: str, *, allow_oom: bool) -> Script:
    """A script as the stage's processes have it, for a gate to look for."""
    return Script((stage.code or ROOT) / path, allow_oom=allow_oom)


@bite("an acknowledgement without a token", Change("worker/scripts/ack.lua", HOLDER, ""))
async def acknowledgement(stage: Stage) -> Pod:
    """Redis is wiped before it comes. What is queued since then has the same offsets, and nobody has stored it."""
    gate, api = await stage.redis_gate(), await stage.api()
    rule = gate.hold(script_of(stage, "worker/scripts/ack.lua", allow_oom=True))
    talk = await begin_talk(stage, api)
    assert await append(stage, api, talk) == 200
    first = await stage.worker(REDIS_PORT=str(gate.port))
    await held(rule.held)
    await api.kill()
    gate.shut = True
    await stage.wipe_redis()
    await api.start()
    new = await begin_talk(stage, api)
    assert await append(stage, api, new) == 200
    gate.shut = False
    rule.release()
    await wait_until(lambda: stage.metric(first, "chatbot_worker_batches_total"), "the late acknowledgement", 20)
    return api


ASSIGN_NEXT = "redis.call('HSET', META, 'next', text(to))\n"


@bite(
    "entries that leave the list with the claim",
    Change(
        "worker/scripts/claim.lua",
        ASSIGN_NEXT,
        ASSIGN_NEXT + "redis.call('LTRIM', QUEUE, to - head, -1)\nredis.call('HSET', META, 'head', text(to))\n",
    ),
)
async def popped(stage: Stage) -> Pod:
    """As with LPOP: who dies with them takes them along."""
    gate, api = await stage.postgres_gate(), await stage.api()
    rule = gate.hold(b"COPY ", times=10)
    talk = await begin_talk(stage, api)
    assert await append(stage, api, talk) == 200
    doomed = await stage.worker(PG_PORT=str(gate.port))
    await held(rule.held)
    await doomed.kill()
    await stage.let_leases_end()
    await stage.worker()
    return api


@bite("a clash that is not compared", Change("worker/store.py", "clashes += repeated.clashes\n", "pass\n"))
async def clash(stage: Stage) -> Pod:
    """An acknowledged item whose place another one has already: it is kept as a dead letter, never swallowed."""
    api = await stage.api()
    await stage.worker()
    talk = await begin_talk(stage, api)
    assert await append(stage, api, talk, texts=["first"]) == 200
    async with stage.sql() as connection:
        await stage.drain()
        row = await connection.fetchrow("SELECT id, position FROM items WHERE conversation = $1", talk.conversation)
    assert row is not None
    header = f"1 {TENANT} {talk.conversation} {row['position']} item {row['id']} -\n".encode()
    body = b'{"id":"%b","type":"message","role":"user","content":"second"}' % row["id"].encode()
    await push(stage.redis, header + body)
    talk.told.append("second")
    stage.dead_expected = 1
    await stage.drain()
    return api


OWNER = "if state[2] ~= response or state[3] ~= token then\n"


@bite("a lock without a token", Change("api/scripts/finish.lua", OWNER, "if false then\n"))
async def lock(stage: Stage) -> Pod:
    """A stopped process's turn is closed by another one; when it goes on, it must not write its answer as well."""
    slow, other = await stage.api(**await stage.asking()), await stage.api()
    await stage.worker()
    talk = await begin_talk(stage, slow)
    turn = asyncio.create_task(streamed_turn(stage, slow, talk, model="fake-slow-40ms"))
    await wait_until(lambda: _logged(stage), "the turn to be logged")
    slow.pause()
    await _expire_locks(stage)
    await wait_until(lambda: _nothing_runs(stage), "the other process to close it", 20)
    slow.resume()
    assert await turn in ("response.incomplete", "ClientPayloadError", "")
    return other


async def _logged(stage: Stage) -> bool:
    keys = [key async for key in stage.redis.scan_iter("log:*")]
    return bool(keys)


async def _expire_locks(stage: Stage) -> None:
    for member in cast("list[bytes]", await stage.redis.zrange("running", 0, -1)):
        tenant, _, response = member.decode().partition(":")
        thread = cast("bytes", await stage.redis.hget(f"resp:{tenant}:{response}", "thread")).decode()
        await stage.redis.hset(f"conv:{tenant}:{thread}", "deadline", "1")
        await stage.redis.zadd("running", {member: 1})


async def _nothing_runs(stage: Stage) -> bool:
    return await stage.redis.zcard("running") == 0


COUNTED = "local unstored = math.max(tonumber(state[1]) - tonumber(count), 0)"


@bite("`unstored` derived from positions", Change("worker/scripts/ack.lua", COUNTED, "local unstored = 0"))
async def unstored(stage: Stage) -> Pod:
    """A later range is stored first. What is still queued must not look as if it could be evicted."""
    gate, api = await stage.postgres_gate(), await stage.api()
    rule = gate.hold(b"COMMIT")
    talk = await begin_talk(stage, api)
    for _ in range(3):
        assert await append(stage, api, talk) == 200
    await stage.worker(PG_PORT=str(gate.port), BATCH_ENTRIES="20")
    await held(rule.held)
    await wait_until(lambda: _stored(stage, 40), "the later ranges to be stored")
    await _evict(stage)
    await _compare(stage, api, talk)
    rule.release()
    return api


async def _stored(stage: Stage, items: int) -> bool:
    async with stage.sql() as connection:
        stored = bool(await connection.fetchval("SELECT count(*) FROM items") >= items)
    return stored and await stage.redis.hlen("{chatQueue}:d") > 0


async def _evict(stage: Stage) -> None:
    """What Redis may do to whatever has a time to live."""
    for key in [key async for key in stage.redis.scan_iter("*")]:
        if await stage.redis.ttl(key) > 0:
            await stage.redis.delete(key)


async def _compare(stage: Stage, api: Pod, talk: Talk) -> None:
    if await listed(stage, api, talk.conversation) != talk.told:
        stage.seen["shown"] = "not what was told"


TICKET = "if redis.call('GET', load_key(tenant, thread)) ~= ticket or"


@bite("a warm without a ticket", Change("api/scripts/warm.lua", TICKET, "if"))
async def warm(stage: Stage) -> Pod:
    """A loader is stalled; meanwhile the conversation goes on, is stored, and is evicted."""
    gate, other = await stage.redis_gate(), await stage.api()
    await stage.worker()
    stalled = await stage.api(REDIS_PORT=str(gate.port))
    talk = await begin_talk(stage, other)
    assert await append(stage, other, talk) == 200
    await stage.drain()
    await _evict(stage)
    rule = gate.hold(script_of(stage, "api/scripts/warm.lua", allow_oom=False))
    loading = asyncio.create_task(stage.post(stalled, f"conversations/{talk.conversation}/items", _NO_ITEMS))
    await held(rule.held)
    await stage.redis.delete(*[key async for key in stage.redis.scan_iter("load:*")])
    assert await append(stage, other, talk) == 200
    await stage.drain()
    await _evict(stage)
    rule.release()
    status, _ = await loading
    assert status == 200
    talk.told.append("late")
    await _compare(stage, other, talk)
    return other


_NO_ITEMS = {"items": [{"type": "message", "role": "user", "content": "late"}]}

COUNTER = "return secrets.token_hex(16)\n\n\nasync def claim"
EPOCH = "math.max(tonumber(candidate), tonumber(state[1] or '0') + 1)"


@bite(
    "fences that count",
    Change(
        "worker/queue.py",
        COUNTER,
        "return str(next(_count))\n\n\nimport itertools\n_count = itertools.count()\n\n\nasync def claim",
    ),
    Change("worker/writer.py", "LANES = 2\n", "LANES = 1\n"),
    Change("core/scripts/renew.lua", EPOCH, "tonumber(state[1] or '0') + 1"),
)
async def fence(stage: Stage) -> Pod:
    """After Redis was wiped they begin anew: somebody else's lease looks like the one of a late acknowledgement."""
    gate, to_postgres, api = await stage.redis_gate(), await stage.postgres_gate(), await stage.api()
    late = gate.hold(script_of(stage, "worker/scripts/ack.lua", allow_oom=True))
    assert await append(stage, api, await begin_talk(stage, api)) == 200
    first = await stage.worker(REDIS_PORT=str(gate.port))
    await held(late.held)
    await api.kill()
    gate.shut = True
    await stage.wipe_redis()
    await api.start()
    assert await append(stage, api, await begin_talk(stage, api)) == 200
    storing = to_postgres.hold(b"COPY ", times=10)
    second = await stage.worker(PG_PORT=str(to_postgres.port))
    await held(storing.held)
    gate.shut = False
    late.release()
    await wait_until(lambda: stage.metric(first, "chatbot_worker_batches_total"), "the late acknowledgement", 20)
    await second.kill()
    await stage.let_leases_end()
    await stage.worker()
    return api


async def _is_caught(one: Bite, postgres: Postgres, needs: Needs) -> bool:
    async with stage_on(postgres, needs, items=0, large=False, seed=1) as stage:
        api = await one.play(stage)
        stage.fault_ended_at = time.monotonic()
        try:
            report = await judge(stage, api)
        except AssertionError as error:
            return "the queue to drain" in str(error)
        return not report.sound or "shown" in stage.seen


@pytest.mark.parametrize("name", BITES)
@pytest.mark.parametrize("taken_out", [True, False], ids=["without it", "with it"])
async def test_a_guarantee(postgres: Postgres, tmp_path: Path, name: str, *, taken_out: bool) -> None:
    one = BITES[name]
    needs = one.needs
    if taken_out:
        code = broken_tree(tmp_path, *one.changes) if one.changes else None
        needs = replace(needs, code=code, redis_settings=one.broken_settings)
    assert await _is_caught(one, postgres, needs) == taken_out
