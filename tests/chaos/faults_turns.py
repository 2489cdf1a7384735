"""Turns that race for one conversation, and turns whose model says nothing for long: the lock decides, and holds."""

import asyncio
import time

import orjson

from api.history.steps import LOCK_MS
from local.children import HOST
from tests.chaos.acts import begin_talk
from tests.chaos.faults_api import asks, raw_stream
from tests.chaos.registry import fault
from tests.chaos.said import answered
from tests.chaos.scene import Json
from tests.chaos.stage import Pod, Stage
from tests.chaos.users import fill, load
from tests.waiting import wait_until


async def upstream_requests(stage: Stage, model: str) -> int:
    """How often this model was asked."""
    upstream = await stage.upstream()
    async with stage.http.get(f"http://{HOST}:{upstream.port}/requests") as answer:
        requests = orjson.loads(await answer.read())
    return sum(request["body"]["model"] == model for request in requests)


async def release(stage: Stage, name: str) -> None:
    """Let the upstream's model `fake-hold-NAME` go on."""
    upstream = await stage.upstream()
    async with stage.http.post(f"http://{HOST}:{upstream.port}/release/{name}") as answer:
        assert answer.status == 200


WHOLE_ANSWER = " ".join(f"word{number}" for number in range(1, 33))
RACING = 100


@fault(21, "two APIs, one conversation, 100 racing turns")
async def racing_turns(stage: Stage) -> None:
    """One runs; all others are refused before the model is asked."""
    asking = await stage.asking()
    pods = [await stage.api(**asking), await stage.api(**asking)]
    echo = await stage.api()
    await stage.worker()
    async with load(stage, echo) as users:
        for number in range(10 if stage.large else 2):
            talk, name = await begin_talk(stage, echo), f"race-{number}"
            texts = [stage.ledger.text() for _ in range(RACING)]
            racing = {
                asyncio.create_task(_race(stage, pods[at % 2], asks(talk, text, f"fake-hold-{name}"))): text
                for at, text in enumerate(texts)
            }
            winner = await _all_but_one_refused(racing)
            # The one that was not refused may still be on its way there.
            await wait_until(lambda: upstream_requests(stage, f"fake-hold-{name}"), "the model to be asked")  # noqa: B023
            assert await upstream_requests(stage, f"fake-hold-{name}") == 1
            await release(stage, name)
            assert await winner == (200, "completed")
            talk.told += [racing[winner], answered(WHOLE_ANSWER)]
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()


async def _race(stage: Stage, pod: Pod, body: Json) -> tuple[int, str]:
    stage.ledger.operations += 1
    status, answer = await stage.post(pod, "responses", body)
    return status, answer["status"] if status == 200 else answer["error"]["code"]


async def _all_but_one_refused(racing: "dict[asyncio.Task[tuple[int, str]], str]") -> "asyncio.Task[tuple[int, str]]":
    await wait_until(lambda: sum(task.done() for task in racing) >= RACING - 1, "all but one to be refused", 30)
    refusals = {task.result() for task in racing if task.done()}
    assert refusals == {(409, "conversation_locked")}, refusals
    [winner] = [task for task in racing if not task.done()]
    return winner


# Beyond the lock; the design asks for a minute.
SILENT_SECONDS = LOCK_MS / 1000 + 3
LONG_SILENT_SECONDS = 60.0


@fault(24, "an upstream is silent for longer than a lock lives")
async def silent_upstream(stage: Stage) -> None:
    """The lock is kept, whether tokens had come before or not, and nobody else gets in."""
    patience = {"UPSTREAM_FIRST_TOKEN_SECONDS": "120", "UPSTREAM_BETWEEN_TOKENS_SECONDS": "120"}
    asking = await stage.asking()
    pod, other = await stage.api(**asking, **patience), await stage.api(**asking, **patience)
    echo = await stage.api()
    await stage.worker()
    async with load(stage, echo, users=2 if stage.large else 0):
        streaming, waiting = await begin_talk(stage, echo), await begin_talk(stage, echo)
        texts, got = [stage.ledger.text(), stage.ledger.text()], bytearray()
        stream = asyncio.create_task(raw_stream(stage, pod, asks(streaming, texts[0], "fake-hold-silent"), got))
        turn = asyncio.create_task(_race(stage, pod, asks(waiting, texts[1], "fake-hold-silent")))
        await wait_until(lambda: b"word3" in got, "the first tokens")
        end = time.monotonic() + (LONG_SILENT_SECONDS if stage.large else SILENT_SECONDS)

        async def locked_to_the_end() -> bool:
            for talk in (streaming, waiting):
                refused = await _race(stage, other, asks(talk, "too early", "fake"))
                assert refused == (409, "conversation_locked"), refused
            return time.monotonic() > end

        await wait_until(locked_to_the_end, "the silence to last", LONG_SILENT_SECONDS + 10)
        assert await upstream_requests(stage, "fake") == 0
        await release(stage, "silent")
        assert await turn == (200, "completed")
        await stream
        assert b"event: response.completed\n" in got
        for talk, text in zip((streaming, waiting), texts, strict=True):
            talk.told += [text, answered(WHOLE_ANSWER)]
    await fill(stage, echo)
    assert await stage.metric(other, "chatbot_orphans_closed_total") == 0
    stage.fault_ended_at = time.monotonic()
