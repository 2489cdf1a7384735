"""Hot copies that are evicted, deleted or restored too late: nobody sees less, or more, than what was acknowledged."""

import asyncio
import time

from api.history import changes
from tests.chaos.acts import append, begin_talk, delete, look, turn
from tests.chaos.gate import Rule, learn
from tests.chaos.registry import fault
from tests.chaos.said import Talk
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import load
from tests.entries import TENANT
from tests.waiting import wait_until

# A script is known by its hash.
WARM = changes._warm  # noqa: SLF001
# Redis evicts only what may expire.
EVICT = "if redis.call('TTL', KEYS[1]) < 0 then return 0 end return redis.call('DEL', KEYS[1])"
TAKES_STORE_LOCK = b"pg_advisory_xact_lock_shared"
EVICTED_USERS = 8
BURIED = "SELECT count(*) FROM tombstones WHERE tenant = $1 AND kind = $2"


async def evict(stage: Stage, key: str) -> int:
    return int(await stage.redis.eval(EVICT, 1, key))


async def evicted_at_last(stage: Stage, key: str) -> None:
    """As soon as PostgreSQL has all of it."""
    await wait_until(lambda: evict(stage, key), "the key to be evictable")


def keys_of(talk: Talk) -> tuple[str, str]:
    return f"conv:{TENANT}:{talk.conversation}", f"items:{TENANT}:{talk.conversation}"


@fault(22, "deletes race their own late entries with three workers")
async def racing_deletes(stage: Stage) -> None:
    gate = await stage.postgres_gate()
    pods = [await stage.api(), await stage.api()]
    # An entry that is certainly late: its range was claimed before the delete and is stored after it.
    late = await stage.worker(PG_PORT=str(gate.port), BATCH_ENTRIES="7")
    talk = await begin_talk(stage, pods[0])
    await stage.drain()
    rule = gate.hold(TAKES_STORE_LOCK, times=2)
    assert await append(stage, pods[0], talk) == 200
    await held(rule.held)
    for _ in range(2):
        await stage.worker(BATCH_ENTRIES="7")
    assert await delete(stage, pods[1], talk) == 200
    await wait_until(lambda: _buried(stage, 1), "the delete to be stored")
    rule.release()
    await stage.drain()
    assert await stage.metric(late, "chatbot_worker_leases_lost_total") == 0, "it was late, not replaced"
    # And many more, wherever the three workers happen to be with them.
    async with load(stage, *pods) as users:
        rounds = 60 if stage.large else 6
        await asyncio.gather(*(_live_and_die(stage, pods, rounds // 3) for _ in range(3)))
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()
    await stage.drain()
    stage.seen["deleted"] = sum(talk.deleted is True for talk in stage.ledger.talks)
    assert await _buried(stage, int(str(stage.seen["deleted"])))


async def _buried(stage: Stage, count: int) -> bool:
    async with stage.sql() as connection:
        return bool(await connection.fetchval(BURIED, TENANT, "conversation") == count)


async def _live_and_die(stage: Stage, pods: list[Pod], rounds: int) -> None:
    """Conversations that are deleted at once, by one process behind the other's back."""
    for _ in range(rounds):
        first, second = stage.random.sample(pods, 2)
        talk = await begin_talk(stage, first)
        for _ in range(stage.random.randrange(1, 4)):
            assert await append(stage, stage.random.choice(pods), talk, stage.random.randrange(1, 21)) == 200
        if stage.random.random() < 0.3:
            assert await turn(stage, first, talk) == 200
        assert await delete(stage, second, talk) == 200
        for pod in pods:
            assert await append(stage, pod, talk) == 404
            assert await turn(stage, pod, talk) == 404


@fault(25, "half of a conversation's hot keys is evicted")
async def half_evicted(stage: Stage) -> None:
    pods = [await stage.api(), await stage.api()]
    await stage.worker()
    evicted = 0
    # Each half of a quiet conversation, before a read, an append and a turn.
    for half in (0, 1):
        for act in (append, turn):
            talk = await begin_talk(stage, pods[0])
            assert await append(stage, pods[0], talk) == 200
            await evicted_at_last(stage, keys_of(talk)[half])
            evicted += 1
            assert await act(stage, pods[1], talk) == 200
            # What the act left hot is asked for before anything mends it.
            await look(stage, pods[0], talk)
    # And either, at any time, while people write.
    async with load(stage, *pods, users=EVICTED_USERS) as users:
        rounds = 300 if stage.large else 50
        while evicted < rounds:
            # Those that somebody still goes on with, and comes back to.
            talk = stage.random.choice(stage.ledger.talks[-2 * EVICTED_USERS :])
            evicted += await evict(stage, stage.random.choice(keys_of(talk)))
            await asyncio.sleep(0)
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()
    rebuilds = [await stage.metric(pod, "chatbot_history_rebuilds_total") for pod in pods]
    stage.seen.update(evicted=evicted, rebuilds=sum(rebuilds))
    assert sum(rebuilds) >= 4, "conversations were loaded again"


@fault(26, "a loader is stalled between PostgreSQL and its warm")
async def stalled_loader(stage: Stage) -> None:
    """Meanwhile another process changes the conversation; the old state that the loader brings must not come back."""
    gate = await stage.redis_gate()
    loader, other = await stage.api(REDIS_PORT=str(gate.port)), await stage.api()
    await stage.worker()
    await learn(stage.redis, WARM)
    for number in range(6 if stage.large else 2):
        talk = await begin_talk(stage, other)
        assert await append(stage, other, talk) == 200
        await _make_cold(stage, talk)
        rule = gate.hold(WARM)
        loading = asyncio.create_task(append(stage, loader, talk))
        await held(rule.held)
        loader.pause()
        if not stage.large:
            # As if the 5 s of the loader's ticket were over; until then others wait for it.
            assert await stage.redis.delete(f"load:{TENANT}:{talk.conversation}")
        assert await append(stage, other, talk) == 200
        # The last of them finds the conversation cold again: nothing but the lost ticket is in its way.
        if number % 2:
            await _make_cold(stage, talk)
        rule.release()
        await _refused(rule)
        if number % 2:
            assert await stage.redis.exists(*keys_of(talk)) == 0, "the old state was put back"
        loader.resume()
        await loading
        assert await append(stage, other, talk) == 200
    async with load(stage, loader, other) as users:
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()


async def _refused(warming: Rule) -> None:
    await wait_until(lambda: warming.replies, "the late warm's reply")
    assert warming.replies[0].startswith(b":0"), warming.replies


async def _make_cold(stage: Stage, talk: Talk) -> None:
    for key in keys_of(talk):
        await evicted_at_last(stage, key)
