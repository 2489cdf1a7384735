"""What happens to each broken variant. To the real service the same happens, and does it no harm."""

import asyncio
import shutil
from typing import cast

import orjson

from core.entry import item_tail
from core.queue import ACKED, QUEUE
from tests.chaos.acts import append, begin_talk, look, streamed_turn, turn
from tests.chaos.said import Talk, answered
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import load
from tests.entries import TENANT, header
from tests.waiting import wait_until
from worker import queue

COPY = b"COPY "
# Also a part of how a transaction begins: what is held there has claimed its range, and stored nothing of it.
COMMIT = b"COMMIT"
# A script is known by its hash.
CLAIM = queue._claim  # noqa: SLF001
MANY = 1000
SLOW_FSYNC_SECONDS = 1.0
ITEMS = 60


async def power_cut_in_a_slow_sync(stage: Stage, **settings: str) -> None:
    """Redis and all who remember die while the disk is busy: what was acknowledged must be on it."""
    api = await stage.api(**settings)
    everysec = stage.redis_settings["appendfsync"] == "everysec"
    async with load(stage, api) as users:
        await users.more(ITEMS)
        stage.knobs.slow_fsync(SLOW_FSYNC_SECONDS)

        async def syncing() -> bool:
            return bool((await stage.redis.info("persistence"))["aof_pending_bio_fsync"]) or not everysec

        await wait_until(syncing, "Redis to sync its file in the background")
        await users.more(ITEMS)
        await asyncio.gather(stage.valkey.kill(), api.kill())
        stage.knobs.slow_fsync(0)
        await stage.valkey.start()
        await asyncio.gather(api.start(), stage.worker(**settings))


async def same_place_twice(stage: Stage) -> None:
    """An acknowledged item comes with the position of another one, as after a mistake with the clock."""
    api, _ = await stage.api(), await stage.worker()
    talk = await begin_talk(stage, api)
    assert await append(stage, api, talk) == 200
    await stage.drain()
    async with stage.sql() as connection:
        last = await connection.fetchval("SELECT max(position) FROM items WHERE conversation = $1", talk.conversation)
    text = stage.ledger.text()
    body = orjson.dumps({"id": "msg_clash", "type": "message", "role": "user", "content": text})
    await stage.redis.rpush(QUEUE, header(talk.conversation, last) + item_tail("msg_clash", None, body))
    talk.told.append(text)
    stage.dead_expected = 1


async def _keep_copy(stage: Stage) -> None:
    stage.valkey.pause()
    shutil.copytree(stage.redis_data, stage.folder / "copy")
    stage.valkey.resume()


async def _rewind(stage: Stage) -> None:
    await stage.valkey.kill()
    shutil.rmtree(stage.redis_data)
    (stage.folder / "copy").rename(stage.redis_data)
    await stage.valkey.start()


async def ack_of_another_time(stage: Stage) -> None:
    """A worker acknowledges what Redis has forgotten: other entries have these offsets now, and nobody stored them."""
    gate, to_redis = await stage.postgres_gate(), await stage.redis_gate()
    doomed, survivor = await stage.api(), await stage.api()
    first, other = await begin_talk(stage, doomed), await begin_talk(stage, survivor)
    worker = await stage.worker(PG_PORT=str(gate.port), REDIS_PORT=str(to_redis.port))
    await stage.drain()
    await _keep_copy(stage)
    rule = gate.hold(COMMIT)
    assert await append(stage, doomed, first) == 200
    await held(rule.held)
    stored = worker.log_text().count('"stored"')
    # Its other lane would else store the entries that come in the place of the forgotten ones.
    claims = to_redis.hold(CLAIM, times=MANY)
    await doomed.kill()
    await _rewind(stage)

    async def goes_on() -> bool:
        return await append(stage, survivor, other) == 200

    await wait_until(goes_on, "the other conversation to go on")
    rule.release()
    await wait_until(lambda: worker.log_text().count('"stored"') > stored, "the late acknowledgement")
    claims.release()
    await doomed.start()


async def killed_after_claim(stage: Stage) -> None:
    """A worker dies with a range that it has not written yet."""
    gate = await stage.postgres_gate()
    api, worker = await stage.api(), await stage.worker(PG_PORT=str(gate.port))
    talk = await begin_talk(stage, api)
    await stage.drain()
    rule = gate.hold(COPY)
    assert await append(stage, api, talk) == 200
    await held(rule.held)
    await worker.kill()
    await stage.let_leases_end()
    await stage.worker()


async def stopped_past_its_lock(stage: Stage) -> None:
    """An API process sleeps through the end of its lock; another one closes its turn and goes on; then it wakes up."""
    asking = await stage.asking()
    sleeper, other = await stage.api(**asking), await stage.api(**asking)
    await stage.worker()
    talk = await begin_talk(stage, sleeper)
    turning = asyncio.create_task(streamed_turn(stage, sleeper, talk, model="fake-hold-asleep"))
    await wait_until(lambda: _has_logged(stage), "the turn's first words to be logged")
    sleeper.pause()
    # As if its 12 s were over.
    (member,) = cast("list[bytes]", await stage.redis.zrange("running", 0, -1))
    await stage.redis.hset(f"conv:{TENANT}:{talk.conversation}", "deadline", "1")
    await stage.redis.zadd("running", {member: 1})
    await wait_until(lambda: _nothing_runs(stage), "the other process to close the turn")
    assert await turn(stage, other, talk) == 200
    sleeper.resume()
    upstream = await stage.upstream()
    async with stage.http.post(f"http://{upstream.host}:{upstream.port}/release/asleep") as answer:
        assert answer.status == 200
    # Without its fence it tries again and again, each time with what is there already.
    await wait_until(lambda: turning.done() or "redis refused a finish" in sleeper.log_text(), "the late finish")
    await sleeper.kill()
    await turning
    # What was logged when it fell asleep; its client may have heard more, or less.
    talk.unsure.add(answered("word1 word2 word3 "))


async def _has_logged(stage: Stage) -> bool:
    logs = [key async for key in stage.redis.scan_iter("log:*")]
    return "word3" in str([await stage.redis.xrange(log) for log in logs])


async def _nothing_runs(stage: Stage) -> bool:
    return not await stage.redis.zcard("running")


def _keys(talk: Talk) -> tuple[str, str]:
    return f"conv:{TENANT}:{talk.conversation}", f"items:{TENANT}:{talk.conversation}"


async def _let_be_evicted(stage: Stage, talk: Talk) -> None:
    """What Redis may evict of a conversation when memory is short, it evicts."""
    for key in _keys(talk):
        if await stage.redis.ttl(key) > 0:
            await stage.redis.delete(key)


async def stored_out_of_order(stage: Stage) -> None:
    """A conversation's later range is stored before its earlier one; then memory gets short."""
    gate = await stage.postgres_gate()
    api = await stage.api()
    talk = await begin_talk(stage, api)
    await stage.worker(PG_PORT=str(gate.port))
    await stage.drain()
    rule = gate.hold(COMMIT)
    assert await append(stage, api, talk) == 200
    await held(rule.held)
    assert await append(stage, api, talk) == 200

    async def later_is_stored() -> bool:
        return bool(await stage.redis.hlen(ACKED))

    await wait_until(later_is_stored, "the later range to be acknowledged")
    await _let_be_evicted(stage, talk)
    assert await append(stage, api, talk) == 200
    rule.release()


async def rewound_to_the_same_number(stage: Stage) -> None:
    """Redis is started again, and then once more on an older copy, from which it counts to the same number."""
    api = await stage.api()
    talk = await begin_talk(stage, api)
    worker = await stage.worker()
    await stage.drain()
    await worker.terminate()
    await _keep_copy(stage)
    await stage.restart_redis()
    await _append_at_last(stage, api, talk)
    assert await turn(stage, api, talk) == 200
    await _rewind(stage)
    other = await _begin_at_last(stage, api)
    await worker.start()
    assert await append(stage, api, other) == 200


async def _append_at_last(stage: Stage, api: Pod, talk: Talk) -> None:
    async def appended() -> bool:
        return await append(stage, api, talk) == 200

    await wait_until(appended, "Redis to be found again")


async def _begin_at_last(stage: Stage, api: Pod) -> Talk:
    async def begun() -> Talk | None:
        status, answer = await stage.post(api, "conversations", {})
        return Talk(answer["id"]) if status == 200 else None

    talk = await wait_until(begun, "Redis to be found again")
    assert talk is not None
    stage.ledger.talks.append(talk)
    return talk


async def stalled_loader(stage: Stage) -> None:
    """A loader stalls with what it read from PostgreSQL; the conversation changes, and gets cold again."""
    gate = await stage.redis_gate()
    loader, other = await stage.api(REDIS_PORT=str(gate.port)), await stage.api()
    await stage.worker()
    talk = await begin_talk(stage, other)
    assert await append(stage, other, talk) == 200
    await stage.drain()
    await _let_be_evicted(stage, talk)
    # Nobody but the loader sends Redis what is stored.
    rule = gate.hold(talk.told[0].encode())
    loading = asyncio.create_task(append(stage, loader, talk))
    await held(rule.held)
    # As if the 5 s of its ticket were over.
    await stage.redis.delete(f"load:{TENANT}:{talk.conversation}")
    assert await append(stage, other, talk) == 200
    await stage.drain()
    await _let_be_evicted(stage, talk)
    rule.release()
    assert await loading == 200


async def half_evicted(stage: Stage) -> None:
    """One of a conversation's two keys is evicted, and it goes on while the worker is away."""
    api, worker = await stage.api(), await stage.worker()
    talk = await begin_talk(stage, api)
    assert await append(stage, api, talk) == 200
    await stage.drain()
    await worker.terminate()
    assert await stage.redis.delete(_keys(talk)[1])
    assert await append(stage, api, talk) == 200
    await look(stage, api, talk)
    await worker.start()
