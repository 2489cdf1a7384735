"""PostgreSQL is away for as long as the queue has room."""

import asyncio
import time

from tests.chaos.acts import begin_talk, streamed_turn
from tests.chaos.judge import recovered
from tests.chaos.registry import fault
from tests.chaos.stage import Stage
from tests.chaos.users import fill, load
from tests.waiting import wait_until

STREAMS = 4
FULL_SECONDS = 120.0


@fault(8, "PostgreSQL is away until the queue is full", own_postgres=True)
async def queue_full(stage: Stage) -> None:
    """New work is refused before memory is short, what runs may finish, and all of it is stored in the end."""
    limit = str(stage.items)
    api = await stage.api(QUEUE_LIMIT=limit)
    asking = await stage.api(QUEUE_LIMIT=limit, **await stage.asking())
    upstream = await stage.upstream()
    await stage.worker()
    talks = [await begin_talk(stage, asking) for _ in range(STREAMS)]
    model = "fake-hold-until-full"
    streams = [asyncio.create_task(streamed_turn(stage, asking, talk, model=model)) for talk in talks]

    async def all_run() -> bool:
        return int(await stage.redis.zcard("running")) == STREAMS

    await wait_until(all_run, "streams to run")
    async with load(stage, api) as users:
        await users.more(stage.items // 4)
        await stage.postgres.kill()
        await wait_until(lambda: stage.ledger.refused["queue_full"] > 0, "the queue to be full", FULL_SECONDS)
    memory = await stage.redis.info("memory")
    assert memory["used_memory"] < memory["maxmemory"] / 2, "memory is far from short"
    full = await stage.depth()
    assert await streamed_turn(stage, asking, talks[0]) in ("queue_full", "conversation_locked")
    async with stage.http.post(f"http://{upstream.host}:{upstream.port}/release/until-full") as answer:
        assert answer.status == 200
    ends = await asyncio.gather(*streams)
    assert set(ends) == {"response.completed"}, ends
    assert await stage.depth() >= full + 3 * STREAMS, "they ended with the queue full"
    assert await streamed_turn(stage, asking, talks[0]) == "queue_full"
    await stage.postgres.start()
    stage.fault_ended_at = time.monotonic()
    await recovered(stage, api)
    await fill(stage, api)
