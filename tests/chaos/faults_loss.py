"""Redis comes back without some of what it had promised: what nobody remembers is lost, and is counted exactly."""

import asyncio
import shutil
import time

from tests.chaos.acts import append, begin_talk, turn
from tests.chaos.judge import listed, recovered
from tests.chaos.registry import fault
from tests.chaos.said import Talk
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import fill, load
from tests.waiting import wait_until

ROUNDS = 5
APPENDS = 5
PUT_BACK = "chatbot_queue_put_back_entries_total"
# A turn leaves its input, its answer, and its response.
OF_A_TURN = 3


async def _speak(stage: Stage, pod: Pod) -> Talk:
    """A new conversation with some items and a turn, all of it acknowledged."""
    talk = await begin_talk(stage, pod)
    for _ in range(APPENDS):
        assert await append(stage, pod, talk) == 200
    assert await turn(stage, pod, talk) == 200
    return talk


def _forget(stage: Stage, talk: Talk) -> None:
    """It is lost for good: nobody who remembers it lives."""
    stage.ledger.talks.remove(talk)
    # The conversation itself, its items, and the response beside the turn's two items.
    stage.lost_expected += 1 + len(talk.told) + len(talk.responses)


@fault(12, "Redis is wiped with entries in the queue")
async def wiped(stage: Stage) -> None:
    """What a living API process acknowledged in the last 10 s is put back; a dead one's is lost, and counted."""
    doomed, survivor = await stage.api(), await stage.api()
    worker = await stage.worker()
    for _ in range(ROUNDS if stage.large else 1):
        async with load(stage, doomed, survivor) as users:
            await users.more(stage.items // (ROUNDS if stage.large else 2))
        await stage.drain()
        await worker.terminate()
        lost = await _speak(stage, doomed)
        await doomed.kill()
        kept = await _speak(stage, survivor)
        before = await stage.metric(survivor, PUT_BACK)
        depth = await stage.depth()
        await stage.wipe_redis()
        _forget(stage, lost)
        stage.fault_ended_at = time.monotonic()
        await asyncio.gather(worker.start(), doomed.start())
        await recovered(stage, survivor)
        put_back = await stage.metric(survivor, PUT_BACK) - before
        # Both conversations, their items, and their responses.
        queued = [1 + len(talk.told) + len(talk.responses) for talk in (lost, kept)]
        assert depth == sum(queued)
        # What was stored shortly before is put back too: PostgreSQL knows it again.
        assert put_back >= queued[1]
    stage.seen["lost_and_counted"] = stage.lost_expected
    await fill(stage, survivor)


async def _copy(stage: Stage) -> None:
    await asyncio.to_thread(shutil.copytree, stage.redis_data, stage.folder / "copy")


async def _rewind(stage: Stage) -> None:
    await stage.valkey.kill()
    await asyncio.to_thread(shutil.rmtree, stage.redis_data)
    (stage.folder / "copy").rename(stage.redis_data)
    await stage.valkey.start()


@fault(13, "Redis is restored from an old file")
async def rewound(stage: Stage) -> None:
    """With no worker at all; with one that holds a lease, in the old file as well as now; with nobody who remembers."""
    gate = await stage.postgres_gate()
    doomed, survivor = await stage.api(), await stage.api()
    await _rewound_without_worker(stage, doomed, survivor)
    worker = await stage.worker(PG_PORT=str(gate.port))
    stage.fault_ended_at = time.monotonic()
    await recovered(stage, survivor)
    async with load(stage, doomed, survivor) as users:
        await users.more(stage.items // 2)
        stored = gate.hold(b"COPY ")
        await held(stored.held)
    assert await stage.leases() > 0
    await _copy(stage)
    stored.release()
    await stage.drain()
    # All of this is stored: nothing of it is lost, though the old file lacks it.
    async with load(stage, doomed, survivor) as users:
        await users.more(100)
    await stage.drain()
    again = gate.hold(b"COMMIT;")
    said = await _speak(stage, survivor)
    await held(again.held)
    assert await stage.leases() > 0
    await _rewind(stage)
    stage.fault_ended_at = time.monotonic()
    again.release()
    assert await turn(stage, survivor, said) == 200
    await recovered(stage, survivor)
    assert worker.child.running
    await _rewound_unremembered(stage, doomed, survivor)
    stage.seen["lost_and_counted"] = stage.lost_expected
    await fill(stage, survivor)


async def _rewound_unremembered(stage: Stage, doomed: Pod, survivor: Pod) -> None:
    """PostgreSQL alone knows that there was more, and it has all of it; hot copies of the old file lack it."""
    talk = await _speak(stage, survivor)
    await stage.drain()
    await _copy(stage)
    assert await turn(stage, survivor, talk) == 200
    await stage.drain()
    await asyncio.gather(doomed.kill(), survivor.kill())
    await _rewind(stage)
    await asyncio.gather(doomed.start(), survivor.start())
    assert await listed(stage, doomed, talk.conversation) == talk.told
    assert await turn(stage, survivor, talk) == 200
    assert await listed(stage, doomed, talk.conversation) == talk.told


async def _rewound_without_worker(stage: Stage, doomed: Pod, survivor: Pod) -> None:
    queued = await _speak(stage, doomed)
    await _copy(stage)
    lost = await _speak(stage, doomed)
    await doomed.kill()
    await _speak(stage, survivor)
    # Into a conversation of which the old file has the beginning.
    assert await turn(stage, survivor, queued) == 200
    await _rewind(stage)
    _forget(stage, lost)
    await doomed.start()

    async def back() -> bool:
        return await append(stage, survivor, queued) == 200

    await wait_until(back, "the conversation to go on", 20)
