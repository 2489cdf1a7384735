"""An API process dies in the middle of its work: what it was asked is done once, what it streamed is ended."""

import asyncio
import re
import time
import uuid
from typing import cast

import aiohttp

from api.history import changes, steps
from api.history.steps import LOCK_MS
from tests.chaos.acts import append, begin_talk
from tests.chaos.gate import learn
from tests.chaos.judge import listed
from tests.chaos.registry import fault
from tests.chaos.said import Talk, answered
from tests.chaos.scene import Json
from tests.chaos.stage import Pod, Stage, held
from tests.chaos.users import load
from tests.entries import TENANT
from tests.waiting import wait_until

# A script is known by its hash.
BEGIN, FINISH = steps._begin, steps._finish  # noqa: SLF001
APPEND, WARM = changes._append, changes._warm  # noqa: SLF001
# The lock's end, the next sweep, and some for a busy machine.
CLOSED_SECONDS = LOCK_MS / 1000 + 10
FIRST_WORDS = "word1 word2 word3 "


async def let_locks_end(stage: Stage) -> None:
    """In the short variant as if the running turns' processes had not been heard of for the whole lock."""
    if stage.large:
        return
    for member in cast("list[bytes]", await stage.redis.zrange("running", 0, -1)):
        thread = cast("bytes", await stage.redis.hget(f"resp:{member.decode()}", "thread"))
        await stage.redis.hset(f"conv:{TENANT}:{thread.decode()}", "deadline", "1")
        await stage.redis.zadd("running", {member: 1}, xx=True)


async def insist(stage: Stage, pod: Pod, talk: Talk, text: str, key: str) -> str:
    """A client that asks again, with its key, until its answer is whole; the response's id."""
    talk.unsure.update((text, answered(text)))

    async def whole() -> str:
        stage.ledger.operations += 1
        try:
            status, answer = await stage.post(pod, "responses", {"input": text, "conversation": talk.conversation}, key)
        except (aiohttp.ClientError, TimeoutError):
            return ""
        return str(answer["id"]) if status == 200 and answer["status"] == "completed" else ""

    response = await wait_until(whole, "the client to get its answer", CLOSED_SECONDS)
    talk.told += [text, answered(text)]
    return response


@fault(4, "an API is killed between Redis's reply and its own, and the client retries")
async def killed_before_its_reply(stage: Stage) -> None:
    gate = await stage.redis_gate()
    doomed, other = await stage.api(REDIS_PORT=str(gate.port)), await stage.api()
    await stage.worker()
    await learn(stage.redis, BEGIN, FINISH, APPEND)
    talk = await begin_talk(stage, other)
    responses = []
    async with load(stage, other) as users:
        for script in (FINISH, BEGIN) * (3 if stage.large else 1):
            text, key = stage.ledger.text(), str(uuid.uuid4())
            rule = gate.hold(script, "after")
            first = asyncio.create_task(insist(stage, doomed, talk, text, key))
            await held(rule.held)
            await doomed.kill()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await let_locks_end(stage)
            responses.append(await insist(stage, other, talk, text, key))
            assert responses[-1] == await _again(stage, other, talk, text, key), "the same key, the same response"
            rule.release()
            await doomed.start()
        rule = gate.hold(APPEND, "after")
        lost = asyncio.create_task(append(stage, doomed, talk))
        await held(rule.held)
        await doomed.kill()
        assert await lost == 0
        shown = await listed(stage, other, talk.conversation)
        assert shown is not None
        assert talk.unsure.issuperset(shown[-20:]), "Redis had carried it out"
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()
    await stage.drain()
    async with stage.sql() as connection:
        query = "SELECT id FROM responses WHERE conversation = $1 AND position > 0 ORDER BY position"
        assert [row["id"] for row in await connection.fetch(query, talk.conversation)] == responses


async def _again(stage: Stage, pod: Pod, talk: Talk, text: str, key: str) -> str:
    status, answer = await stage.post(pod, "responses", {"input": text, "conversation": talk.conversation}, key)
    assert status == 200, answer
    return str(answer["id"])


async def raw_stream(stage: Stage, pod: Pod, body: Json, got: bytearray) -> None:
    """A streamed turn; what came of it is in `got`, also when it breaks off."""
    try:
        async with stage.http.post(f"{pod.url}/responses", json={**body, "stream": True}) as answer:
            assert answer.status == 200, await answer.read()
            async for chunk in answer.content.iter_any():
                got.extend(chunk)
    except (aiohttp.ClientError, ConnectionError):
        pass  # its process was killed


async def resumed(stage: Stage, pod: Pod, response: str, after: int | None = None) -> bytes:
    """The rest of a response's stream, to its end."""
    where = "" if after is None else f"&starting_after={after}"
    async with stage.http.get(f"{pod.url}/responses/{response}?stream=true{where}") as answer:
        assert answer.status == 200
        return await answer.read()


@fault(20, "an API is killed in the middle of streams, which are resumed elsewhere")
async def killed_in_streams(stage: Stage) -> None:
    asking = await stage.asking()
    doomed, heir = await stage.api(**asking), await stage.api(**asking)
    echo = await stage.api()
    await stage.worker()
    async with load(stage, echo) as users:
        talks = [await begin_talk(stage, echo) for _ in range(20 if stage.large else 3)]
        texts = [stage.ledger.text() for _ in talks]
        streams = [bytearray() for _ in talks]
        running = [
            asyncio.create_task(raw_stream(stage, doomed, asks(talk, text, "fake-hold-for-ever"), got))
            for talk, text, got in zip(talks, texts, streams, strict=True)
        ]
        ids = [await _id_of(got) for got in streams]
        await wait_until(lambda: _all_logged(stage, ids, b"word3"), "the text to be logged")
        await doomed.kill()
        await asyncio.gather(*running)
        began = time.monotonic()
        # One of them follows from before its end, the others ask later; the end does not wait for anybody to ask.
        following = asyncio.create_task(resumed(stage, heir, ids[0]))
        await let_locks_end(stage)
        await wait_until(lambda: _none_runs(stage), "the responses to be closed", CLOSED_SECONDS)
        stage.seen["closed_seconds"] = round(time.monotonic() - began, 1)
        for response, got, talk, text in zip(ids, streams, talks, texts, strict=True):
            whole = await resumed(stage, heir, response)
            _check_resumed(bytes(got), whole)
            after = got.count(b"event: ") // 2
            rest = await resumed(stage, heir, response, after)
            assert whole.endswith(rest)
            assert rest.count(b"event: ") == whole.count(b"event: ") - after - 1
            status, body = await stage.call("GET", f"{heir.url}/responses/{response}")
            assert (status, body["status"]) == (200, "incomplete"), body
            talk.told += [text, answered(FIRST_WORDS)]
        assert await following == await resumed(stage, heir, ids[0])
        await users.reach(stage.items)
    stage.fault_ended_at = time.monotonic()


def asks(talk: Talk, text: str, model: str) -> Json:
    return {"input": text, "conversation": talk.conversation, "model": model}


async def _id_of(got: bytearray) -> str:
    def named() -> str:
        found = re.search(rb'"(resp_\w+)"', got)
        return "" if found is None else found[1].decode()

    return await wait_until(named, "a stream to begin")


async def _all_logged(stage: Stage, responses: list[str], text: bytes) -> bool:
    for response in responses:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await stage.redis.xrange(f"log:{TENANT}:{response}"))
        if not any(text in blob[b"e"] for _, blob in entries):
            return False
    return True


async def _none_runs(stage: Stage) -> bool:
    return not await stage.redis.zcard("running")


def _check_resumed(got: bytes, whole: bytes) -> None:
    """Byte for byte what the dead process had sent, and then the end."""
    assert whole.startswith(got), (got, whole)
    rest = whole[len(got) :].split(b"\n\n")
    assert rest[-3].startswith(b"event: response.incomplete\n"), rest
    assert rest[-2:] == [b"data: [DONE]", b""]
