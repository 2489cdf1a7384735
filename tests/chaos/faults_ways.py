"""The ways between the processes and their stores break: PostgreSQL killed, connections cut behind what was sent."""

import asyncio
import time

from api.history import changes, steps
from tests.chaos.acts import begin_talk
from tests.chaos.gate import Gate, Rule, learn
from tests.chaos.registry import fault
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import Load, fill, load
from worker import queue

# A script is known by its hash.
APPEND, DELETE = changes._append, changes._delete_conversation  # noqa: SLF001
BEGIN, FINISH = steps._begin, steps._finish  # noqa: SLF001
CLAIM, ACK = queue._claim, queue._ack  # noqa: SLF001
# The first bytes of COPY's data: the server is in the middle of it.
IN_COPY = b"PGCOPY\n"
# BEGIN names READ COMMITTED.
COMMIT = b"COMMIT;"


@fault(7, "PostgreSQL is killed during COPY and during COMMIT", own_postgres=True)
async def postgres_killed(stage: Stage) -> None:
    gate = await stage.postgres_gate()
    api = await stage.api()
    worker = await stage.worker(PG_PORT=str(gate.port))
    for _ in range(4 if stage.large else 1):
        async with load(stage, api, users=4 if stage.large else 1) as users:
            await _kill_postgres(stage, gate.hold(IN_COPY), users)
            await _kill_postgres(stage, gate.hold(COMMIT), users)
            await _kill_postgres(stage, gate.hold(COMMIT, "after"), users)
        await stage.drain()
    await fill(stage, api)
    stage.fault_ended_at = time.monotonic()
    await stage.drain()
    stage.seen["duplicates"] = await stage.metric(worker, "chatbot_worker_duplicate_rows_total")
    assert stage.seen["duplicates"], "what was committed without an answer was found to be stored"


async def _kill_postgres(stage: Stage, rule: Rule, users: Load) -> None:
    """At the moment that the rule names; people chat on meanwhile."""
    await held(rule.held)
    await stage.postgres.kill()
    rule.cut()
    await users.more(40)
    assert await stage.depth() > 0
    await stage.postgres.start()


@fault(17, "connections are cut after the command was sent")
async def connections_cut(stage: Stage) -> None:
    """Redis or PostgreSQL has carried it out, and nobody hears of it: it is sent again, and changes nothing more."""
    api_gate, worker_gate, sql_gate = await stage.redis_gate(), await stage.redis_gate(), await stage.postgres_gate()
    await learn(stage.redis, APPEND, DELETE, BEGIN, FINISH, CLAIM, ACK)
    api = await stage.api(REDIS_PORT=str(api_gate.port))
    worker = await stage.worker(REDIS_PORT=str(worker_gate.port), PG_PORT=str(sql_gate.port))
    scripts = [(api_gate, script) for script in (APPEND, BEGIN, FINISH)]
    scripts += [(worker_gate, script) for script in (CLAIM, ACK)]
    async with load(stage, api) as users:
        await users.more(50)
        for _ in range(10 if stage.large else 1):
            for gate, script in scripts:
                await _cut_behind(gate.hold(script, "after"))
                await users.more(20)
            await _cut_behind(sql_gate.hold(COMMIT, "after"))
            await _delete_unheard(stage, api, api_gate)
        assert not stage.ledger.refused, stage.ledger.refused
        cuts = 0
        for _ in range(100 if stage.large else 10):
            cuts += stage.random.choice((api_gate, worker_gate, sql_gate)).cut()
            await users.more(stage.random.randrange(1, 20))
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()
    await stage.drain()
    stage.seen.update(cuts=cuts, duplicates=await stage.metric(worker, "chatbot_worker_duplicate_rows_total"))
    assert stage.seen["duplicates"], "the range whose COMMIT was not heard of came again"


async def _cut_behind(rule: Rule) -> None:
    await held(rule.held)
    assert rule.replies, "it was carried out"
    rule.cut()


async def _delete_unheard(stage: Stage, api: Pod, gate: Gate) -> None:
    talk = await begin_talk(stage, api)
    rule = gate.hold(DELETE, "after")
    stage.ledger.operations += 1
    deleting = asyncio.create_task(stage.call("DELETE", f"{api.url}/conversations/{talk.conversation}"))
    await _cut_behind(rule)
    assert (await deleting)[0] == 200
    talk.deleted = True
