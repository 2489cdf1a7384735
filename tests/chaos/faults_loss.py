"""Redis comes back without what it had acknowledged: on an empty volume, or as it was some time ago."""

import asyncio
import shutil

from core.queue import META
from tests.chaos.registry import fault
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import append, begin_talk, fill, load, turn
from tests.waiting import wait_until

# A turn leaves its input, its answer and its response; a conversation leaves an entry when it is made.
OF_A_TURN = 3
OF_A_CONVERSATION = 1


@fault(12, "Redis is wiped with entries queued")
async def wiped(stage: Stage) -> None:
    """What a dead process had acknowledged is lost, to the last entry; what a living one had comes back."""
    doomed, other = await stage.api(), await stage.api()
    worker = await stage.worker()
    async with load(stage, doomed, other) as users:
        await users.more(stage.items // 2)
    await stage.drain()
    await worker.terminate()
    lost = await _say_in_vain(stage, doomed)
    await doomed.kill()
    await _say(stage, other)
    await stage.wipe_redis()
    # The survivor tells what it knows, and goes on at once.
    await _say(stage, other)
    stage.lost_expected = lost
    await worker.start()
    await stage.drain()
    assert await stage.metric(other, "chatbot_queue_put_back_total") > 0
    assert await stage.metric(other, "chatbot_queue_loss_events_total") == 1
    await doomed.start()
    await fill(stage, doomed, other)


async def _say(stage: Stage, pod: Pod, turns: int = 5) -> None:
    talk = await begin_talk(stage, pod)
    for _ in range(turns):
        assert await append(stage, pod, talk) == 200
        assert await turn(stage, pod, talk) == 200


async def _say_in_vain(stage: Stage, pod: Pod, turns: int = 5) -> int:
    """What is acknowledged here is known to be lost: the ledger leaves it out; how many queue entries that is."""
    before = await stage.depth()
    talk = await begin_talk(stage, pod)
    for _ in range(turns):
        assert await append(stage, pod, talk) == 200
        assert await turn(stage, pod, talk) == 200
    stage.ledger.talks.remove(talk)
    entries = await stage.depth() - before
    assert entries == OF_A_CONVERSATION + turns * (20 + OF_A_TURN)
    return entries


async def _rewind(stage: Stage) -> None:
    await stage.valkey.kill()
    shutil.rmtree(stage.redis_data)
    (stage.folder / "copy").rename(stage.redis_data)
    await stage.valkey.start()


@fault(13, "Redis is restored from an old copy")
async def rewound(stage: Stage) -> None:
    """With workers at zero and with one that holds a lease; once with processes that remember, once without any."""
    api = await stage.api()
    worker = await stage.worker()
    async with load(stage, api) as users:
        await users.more(stage.items // 2)
    await stage.drain()
    talk = stage.ledger.talks[0]

    # Workers at zero. The copy lacks what is stored since then, and what is not.
    await asyncio.to_thread(shutil.copytree, stage.redis_data, stage.folder / "copy")
    assert await append(stage, api, talk) == 200
    await stage.drain()
    await worker.terminate()
    assert await turn(stage, api, talk) == 200
    await _rewind(stage)
    await _put_back(stage, api, 1)
    assert await turn(stage, api, talk) == 200
    await worker.start()
    await stage.drain()
    await worker.terminate()

    # A worker holds a lease of entries that the copy has, too, and of such that it lacks.
    assert await turn(stage, api, talk) == 200
    await asyncio.to_thread(shutil.copytree, stage.redis_data, stage.folder / "copy")
    assert await append(stage, api, talk) == 200
    gate = await stage.postgres_gate()
    rule = gate.hold(b"COMMIT")
    holder = await stage.worker(PG_PORT=str(gate.port))
    await held(rule.held)
    await _rewind(stage)
    await _put_back(stage, api, 2)
    rule.release()
    await stage.drain()
    await holder.terminate()

    # Nobody remembers: PostgreSQL alone knows that there was more, and it has it all.
    await asyncio.to_thread(shutil.copytree, stage.redis_data, stage.folder / "copy")
    await worker.start()
    assert await turn(stage, api, talk) == 200
    await stage.drain()
    await api.kill()
    await _rewind(stage)
    await api.start()
    await wait_until(lambda: _is_marked(stage), "somebody to see that Redis was rewound")
    await fill(stage, api)
    assert await turn(stage, api, talk) == 200


async def _put_back(stage: Stage, api: Pod, events: int) -> None:
    async def told() -> bool:
        return await stage.metric(api, "chatbot_queue_loss_events_total") >= events

    await wait_until(told, "the loss to be noticed")


async def _is_marked(stage: Stage) -> bool:
    epoch, lost = await stage.redis.hmget(META, ["epoch", "lost"])
    return epoch is not None and epoch == lost
