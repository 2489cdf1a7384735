"""A worker dies, stops or is told to stop between two of its steps."""

import signal
import time

from tests.chaos.acts import append, begin_talk
from tests.chaos.gate import learn
from tests.chaos.registry import fault
from tests.chaos.stage import TAKEOVER_SECONDS, Pod, Stage, held
from tests.chaos.users import fill, load
from tests.entries import broken_item, item, push
from tests.waiting import wait_until
from worker import queue

ACK = queue._ack  # noqa: SLF001 - a script is known by its hash
COPY = b"COPY "
# BEGIN names READ COMMITTED.
COMMIT = b"COMMIT;"
RELEASED_SECONDS = 8.0


@fault(1, "a worker is killed between claim and COPY")
async def killed_before_copy(stage: Stage) -> None:
    gate = await stage.postgres_gate()
    api = await stage.api()
    worker = await stage.worker(PG_PORT=str(gate.port))
    async with load(stage, api) as users:
        await users.more(100)
        rule = gate.hold(COPY)
        await held(rule.held)
        await worker.kill()
        assert await stage.leases() > 0, "the dead worker holds a lease"
        depth = await stage.depth()
        assert depth > 0
        await users.more(100)
        await stage.let_leases_end()
        successor = await stage.worker()
        await users.reach(stage.items)
    await _taken_over(stage, successor)


async def _taken_over(stage: Stage, successor: Pod) -> None:
    stage.fault_ended_at = time.monotonic()
    await stage.drain(TAKEOVER_SECONDS + 60)
    takeovers = await stage.metric(successor, "chatbot_worker_redeliveries_total")
    stage.seen["takeovers"] = takeovers
    assert takeovers > 0, "the dead worker's range was taken over"


@fault(2, "a worker is killed after COMMIT, before its acknowledgement")
async def killed_before_ack(stage: Stage) -> None:
    gate = await stage.redis_gate()
    api = await stage.api()
    worker = await stage.worker(REDIS_PORT=str(gate.port))
    async with load(stage, api) as users:
        await users.more(100)
        # The first ranges may hold nothing but the conversations, which are no rows that could come twice.
        rule = gate.hold(ACK, skip=2)
        await held(rule.held)
        await worker.kill()
        await stage.let_leases_end()
        successor = await stage.worker()
        await users.reach(stage.items)
    await _taken_over(stage, successor)
    duplicates = await stage.metric(successor, "chatbot_worker_duplicate_rows_total")
    stage.seen["duplicates"] = duplicates
    assert duplicates > 0, "the rows were found to be stored already"
    assert await stage.lost_entries() == 0


@fault(3, "a worker is stopped between COPY and COMMIT, past its lease, and goes on")
async def stopped_past_its_lease(stage: Stage) -> None:
    """One lane is caught before its acknowledgement, which then comes late, the other before COMMIT."""
    to_postgres, to_redis = await stage.postgres_gate(), await stage.redis_gate()
    await learn(stage.redis, ACK)
    api = await stage.api()
    worker = await stage.worker(PG_PORT=str(to_postgres.port), REDIS_PORT=str(to_redis.port))
    async with load(stage, api) as users:
        await users.more(100)
        # In this order: who has not committed keeps everybody else from it (the row of the queue's epoch).
        ack = to_redis.hold(ACK)
        await held(ack.held)
        commit = to_postgres.hold(COMMIT)
        await held(commit.held)
        worker.pause()
        await stage.let_leases_end()
        successor = await stage.worker()
    began = time.monotonic()
    await _taken_over(stage, successor)
    stage.seen["redo_seconds"] = round(time.monotonic() - began, 1)
    # After a whole lease PostgreSQL has ended it by itself: it was idle for 10 s.
    ended = "ended the session of a range's former holder" in successor.log_text()
    assert ended or stage.large
    # What a late acknowledgement could trim: entries that nobody has stored.
    await successor.terminate()
    (talk,) = stage.ledger.talks[:1]
    assert await append(stage, api, talk) == 200
    commit.release()
    ack.release()
    await wait_until(lambda: ack.replies, "the late acknowledgement's reply")
    assert ack.replies[0].startswith(b":0"), ack.replies
    assert await stage.depth() == 20
    worker.resume()
    await successor.start()
    await fill(stage, api)


POISONS = (
    b"\xff\xfe nothing that the API writes",
    broken_item(1, b'{"id":"msg_1","role":"user","content":"\\u0000"}', "conv_poison"),
    broken_item(2, b'{"id":"msg_2", broken', "conv_poison"),
    broken_item(3, b'{"id":"msg_3","content":"\xff"}', "conv_poison"),
)
# More than are dropped one by one, so that the batch is halved.
POISON_ROUNDS = 5


@fault(10, "poison is mixed into big batches")
async def poison(stage: Stage) -> None:
    api = await stage.api()
    stage.ledger.others = {"conv_poison", "conv_sound"}
    rounds = POISON_ROUNDS * (10 if stage.large else 1)
    async with load(stage, api) as users:
        for number in range(rounds):
            await users.more(stage.items // rounds)
            lines = [line + b" " * (number + 1) if line is POISONS[0] else line for line in POISONS]
            lines = [line.replace(b"msg_", b"msg_%d_" % number) for line in lines]
            await push(stage.redis, *lines, item(number, "conv_sound"))
    stage.dead_expected = rounds * len(POISONS)
    worker = await stage.worker()
    await stage.drain()
    assert await stage.metric(worker, "chatbot_worker_dead_letters_total") == stage.dead_expected
    async with stage.sql() as connection:
        assert await connection.fetchval("SELECT count(*) FROM items WHERE conversation = 'conv_sound'") == rounds


@fault(11, "an entry kills every worker that stores it")
async def deadly_entry(stage: Stage) -> None:
    """After some deaths its range is halved until it is alone, and then it is a dead letter; no neighbour ever is."""
    gate = await stage.postgres_gate()
    deadly = stage.ledger.text().replace("t-", "deadly-")
    # On its way into a table; as a dead letter it does no harm.
    rule = gate.hold(deadly.encode(), times=100, within=b"PGCOPY")
    api = await stage.api()
    talk = await begin_talk(stage, api)
    assert await append(stage, api, talk) == 200
    assert await append(stage, api, talk, texts=[*(stage.ledger.text() for _ in range(7)), deadly]) == 200
    for count in (20, 15):
        assert await append(stage, api, talk, count) == 200
    # A range of its own behind those 64 entries, in the other lane's hands as often as makes it a suspect too.
    assert await stage.depth() == 64
    neighbour = stage.ledger.text().replace("t-", "neighbour-")
    beside = gate.hold(neighbour.encode(), times=queue.MAX_FAILURES, within=b"PGCOPY")
    assert await append(stage, api, talk, texts=[neighbour]) == 200
    settings = {"PG_PORT": str(gate.port), "BATCH_ENTRIES": "32" if stage.large else "8"}
    deaths = 0
    while True:
        worker = await stage.worker(**settings)

        async def dead_or_done() -> bool:
            return rule.held.is_set() or await stage.depth() == 0

        await wait_until(dead_or_done, "the worker to meet the entry, or to be done", TAKEOVER_SECONDS)
        if not rule.held.is_set():
            break
        deaths += 1
        assert deaths < 30
        if deaths <= queue.MAX_FAILURES:
            await held(beside.held)
        await worker.kill()
        rule.held.clear()
        beside.held.clear()
        # Hurried also in the large variant: a dozen leases would be minutes of nothing.
        await stage.let_leases_end(hurried=True)
    stage.seen["deaths"] = deaths
    assert deaths >= queue.MAX_FAILURES + queue.MAX_FAILURES_ALONE
    stage.dead_expected = 1
    [(reason, entry)] = await stage.dead_letters()
    assert reason.startswith("its worker failed")
    assert deadly.encode() in entry
    await fill(stage, api)


@fault(14, "one lease is held by a killed worker at scale-in")
async def lease_at_scale_in(stage: Stage) -> None:
    """The list is as long as what is not stored, so nobody scales to zero, and the lease is taken over."""
    gate = await stage.postgres_gate()
    api = await stage.api()
    doomed = await stage.worker(PG_PORT=str(gate.port))
    rule = gate.hold(COMMIT)
    async with load(stage, api) as users:
        await held(rule.held)
        await doomed.kill()
        left = await stage.leases()
        other = await stage.worker()
        await users.more(200)
    began = time.monotonic()

    async def only_the_dead_hold_any() -> bool:
        state = await queue.status(stage.redis)
        return state.never_leased == 0 and state.leases == left

    await wait_until(only_the_dead_hold_any, "all but the dead worker's range to be stored", TAKEOVER_SECONDS)
    assert await stage.depth() > 0, "what is held counts for KEDA"
    assert await other.terminate() == 0
    await stage.let_leases_end()
    successor = await stage.worker()
    await _taken_over(stage, successor)
    stage.seen["taken_over_seconds"] = round(time.monotonic() - began, 1)
    await fill(stage, api)


@fault(15, "SIGTERM in the middle of a COPY, then SIGKILL")
async def terminated_in_copy(stage: Stage) -> None:
    gate = await stage.postgres_gate()
    api = await stage.api()
    # In order first: what it can't finish it gives back, and nobody waits for a lease.
    async with load(stage, api) as users:
        patient = await stage.worker(PG_PORT=str(gate.port))
        rule = gate.hold(COPY, "after", times=10)
        await users.more(50)
        await held(rule.held)
    assert await patient.terminate() == 0
    successor = await stage.worker()
    began = time.monotonic()
    await stage.drain(RELEASED_SECONDS)
    stage.seen["given_back_seconds"] = round(time.monotonic() - began, 1)
    rule.cut()
    await successor.terminate()
    # And without the time for it.
    async with load(stage, api) as users:
        again = gate.hold(COPY, "after", times=10)
        hurried = await stage.worker(PG_PORT=str(gate.port))
        await held(again.held)
        hurried.child.send(signal.SIGTERM)
        await users.more(50)
        assert hurried.child.running, "it waits for its COPY"
        await hurried.kill()
        assert await stage.leases() > 0
        await stage.let_leases_end()
        await successor.start()
        await users.reach(stage.items)
    await _taken_over(stage, successor)


@fault(19, "the schema is missing", migrated=False)
async def schema_missing(stage: Stage) -> None:
    """Chats go on, the worker waits and says why, and nothing becomes a dead letter."""
    api = await stage.api()
    worker = await stage.unready_worker()
    async with load(stage, api) as users:
        await users.more(100)
        await wait_until(lambda: "run `python -m worker migrate`" in worker.log_text(), "the worker to say it")
        await users.reach(stage.items)
    assert worker.child.running
    assert await stage.depth() >= stage.ledger.acknowledged
    stage.fault_ended_at = time.monotonic()
    await stage.migrate()
    await stage.drain()
