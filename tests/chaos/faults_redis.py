"""Redis is killed, full, without a disk to write to, or its clock is wrong."""

import asyncio
import time
from typing import cast

from api.history.steps import LOCK_MS
from core.queue import LEASES
from tests.chaos.acts import append, begin_talk, streamed_turn
from tests.chaos.judge import recovered
from tests.chaos.registry import fault
from tests.chaos.said import Talk
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import fill, load
from tests.waiting import wait_until
from worker.queue import LEASE_MS

SLOW_FSYNC_SECONDS = 0.02
KILLS = 20
SHORT_KILLS = 4
REWRITES = 10
SHORT_REWRITES = 2
# Of Redis, for each key that it rewrites: the kill is to come in the middle.
REWRITE_KEY_MICROSECONDS = 3000
REWRITTEN_TALKS = 150
HOUR_SECONDS = 3600.0
STREAMS = 50
AWAY_SECONDS = 20.0


async def power_cut(stage: Stage, apis: list[Pod], *, also: bool) -> None:
    """Redis dies and comes back; `also`: the API processes die with it, and all that they remember."""
    await asyncio.gather(stage.valkey.kill(), *(pod.kill() for pod in apis if also))
    await stage.valkey.start()
    if also:
        await asyncio.gather(*(pod.start() for pod in apis))


@fault(5, "Redis is killed again and again, with a slow disk", shim=True)
async def killed_with_slow_disk(stage: Stage) -> None:
    """Every second time without anybody who could remember: what the disk has must be enough."""
    apis = [await stage.api(), await stage.api()]
    await stage.worker()
    kills = KILLS if stage.large else SHORT_KILLS
    stage.knobs.slow_fsync(SLOW_FSYNC_SECONDS)
    async with load(stage, *apis, users=12) as users:
        for number in range(kills):
            await users.more(max(20, stage.items // kills // 2))
            await power_cut(stage, apis, also=number % 2 == 0)
        stage.knobs.slow_fsync(0)
        stage.fault_ended_at = time.monotonic()
        await users.reach(stage.items)
    assert stage.knobs.fsyncs > kills, "the server runs under the shim"
    stage.seen["kills"] = kills
    await recovered(stage, apis[0])


@fault(6, "Redis is killed while it rewrites its file")
async def killed_in_rewrite(stage: Stage) -> None:
    apis = [await stage.api(), await stage.api()]
    await stage.worker()
    for _ in range(REWRITTEN_TALKS):
        await begin_talk(stage, apis[0])
    rewrites = REWRITES if stage.large else SHORT_REWRITES
    async with load(stage, *apis) as users:
        for number in range(rewrites):
            await stage.redis.config_set("rdb-key-save-delay", REWRITE_KEY_MICROSECONDS)
            await stage.redis.bgrewriteaof()
            await users.more(40)
            state = await stage.redis.info("persistence")
            assert state["aof_rewrite_in_progress"] == 1, "the kill comes in the middle"
            await power_cut(stage, apis, also=number % 2 == 0)
        stage.fault_ended_at = time.monotonic()
        await users.reach(stage.items)
    stage.seen["rewrites"] = rewrites
    await recovered(stage, apis[0])


# Small enough to be full soon, and many times what an empty server takes.
FULL = (("maxmemory", "16mb"),)
PADDING = "x" * 4000
FILLED = 20
HOT_TALKS = 20
REFUSED_SECONDS = 60.0


@fault(9, "Redis is at maxmemory", redis_settings=FULL)
async def memory_full(stage: Stage) -> None:
    """What PostgreSQL has makes room first; then new work is refused, and the worker drains all the same."""
    api = await stage.api()
    worker = await stage.worker()
    hot = [await begin_talk(stage, api) for _ in range(HOT_TALKS)]
    for talk in hot:
        assert await _append_large(stage, api, talk) == 200
    await stage.drain()
    await worker.terminate()
    async with asyncio.timeout(REFUSED_SECONDS):
        talk = await begin_talk(stage, api)
        while await _append_large(stage, api, talk) == 200:
            pass
    assert stage.ledger.refused["queue_full"] == 1, stage.ledger.refused
    stage.seen["evicted"] = (await stage.redis.info("stats"))["evicted_keys"]
    assert cast("int", stage.seen["evicted"]) > 0, "what is stored made room"
    assert await stage.depth() > 0
    stage.fault_ended_at = time.monotonic()
    await worker.start()
    await recovered(stage, api)
    await fill(stage, api)


async def _append_large(stage: Stage, api: Pod, talk: Talk) -> int:
    texts = [f"{stage.ledger.text()} {PADDING}" for _ in range(FILLED)]
    return await append(stage, api, talk, texts=texts)


@fault(16, "Redis's clock goes back one hour", shim=True)
async def clock_back(stage: Stage) -> None:
    """Positions go on growing, and a dead worker's lease does not last an hour longer."""
    gate = await stage.postgres_gate()
    apis = [await stage.api(), await stage.api()]
    doomed = await stage.worker(PG_PORT=str(gate.port))
    async with load(stage, *apis) as users:
        await users.more(100)
        rule = gate.hold(b"COPY ", times=10)
        await held(rule.held)
        await doomed.kill()
        stage.knobs.turn_clock(-HOUR_SECONDS)
        seconds, _ = await stage.redis.time()
        assert abs(seconds - (time.time() - HOUR_SECONDS)) < 60, "the clock is back"
        await users.more(100)
        successor = await stage.worker()
        stage.fault_ended_at = time.monotonic()

        async def bounded() -> bool:
            now, _ = await stage.redis.time()
            leases = cast("list[tuple[bytes, float]]", await stage.redis.zrange(LEASES, 0, -1, withscores=True))
            return all(deadline <= (now + 1) * 1000 + LEASE_MS for _, deadline in leases)

        await wait_until(bounded, "no lease to last longer than a lease")
        await stage.let_leases_end()
        await users.reach(stage.items)
    await stage.drain()
    assert await stage.metric(successor, "chatbot_worker_redeliveries_total") > 0
    await recovered(stage, apis[0])
    stage.knobs.turn_clock(0)
    async with load(stage, *apis) as users:
        await users.more(100)


@fault(18, "Redis's disk is full", shim=True)
async def disk_full(stage: Stage) -> None:
    """It ends rather than promise what it can't keep; once there is room, it comes back with all that it promised."""
    apis = [await stage.api(), await stage.api()]
    await stage.worker()
    async with load(stage, *apis) as users:
        await users.more(stage.items // 2)
        stage.knobs.fill_disk(full=True)
        await wait_until(lambda: not stage.valkey.child.running, "Redis to end")
        refused = stage.ledger.refused.total()
        await wait_until(lambda: stage.ledger.refused.total() > refused + 5, "users to be refused")
        stage.knobs.fill_disk(full=False)
        await stage.valkey.start()
        stage.fault_ended_at = time.monotonic()
        await users.reach(stage.items)
    await recovered(stage, apis[0])


@fault(23, "Redis is away while streams run", shim=True)
async def away_with_streams(stage: Stage) -> None:
    """They go on. All locks have ended when it is back; in the short variant since its clock leaps."""
    apis = [await stage.api(**await stage.asking()), await stage.api(**await stage.asking())]
    await stage.worker()
    talks = [await begin_talk(stage, apis[0]) for _ in range(STREAMS)]
    model = "fake-slow-1000ms" if stage.large else "fake-slow-150ms"
    streams = [asyncio.create_task(streamed_turn(stage, apis[0], talk, model=model)) for talk in talks]

    async def all_run() -> bool:
        return int(await stage.redis.zcard("running")) == STREAMS

    await wait_until(all_run, "all streams to run", 20)
    await stage.valkey.kill()
    if stage.large:
        await asyncio.sleep(AWAY_SECONDS)
    else:
        stage.knobs.turn_clock(LOCK_MS / 1000 + AWAY_SECONDS)
    await stage.valkey.start()
    stage.fault_ended_at = time.monotonic()
    ends = await asyncio.gather(*streams)
    assert set(ends) == {"response.completed"}, ends
    closed = sum(pod.log_text().count("response of a dead process closed") for pod in apis)
    assert closed == 0, "no hasty sweeper"
    await recovered(stage, apis[1])
    await fill(stage, await stage.api())
