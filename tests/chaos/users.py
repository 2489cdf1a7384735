"""Users who talk until they are told to stop: cheap appends of 20 items, with some turns between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import orjson

from tests.chaos.said import Talk
from tests.chaos.stage import Pod, Stage
from tests.waiting import wait_until

APPENDED = 20
# One in so many operations is a turn.
TURN_EVERY = 8
LOAD_SECONDS = 300.0
# Then a user begins another conversation: each turn reads all of one, and so does each page of a listing.
LONGEST_TALK = 2000
# After something went wrong, as any client would.
PAUSE_SECONDS = 0.05


async def begin_talk(stage: Stage, pod: Pod) -> Talk:
    status, answer = await stage.post(pod, "conversations", {})
    assert status == 200, answer
    talk = Talk(answer["id"])
    stage.ledger.talks.append(talk)
    return talk


async def append(stage: Stage, pod: Pod, talk: Talk, count: int = APPENDED, texts: list[str] | None = None) -> int:
    """Add items to a conversation, and note whether that was acknowledged; the status, 0 without an answer."""
    said = texts or [stage.ledger.text() for _ in range(count)]
    items = [{"type": "message", "role": "user", "content": text} for text in said]
    return await _attempt(stage, pod, talk, f"conversations/{talk.conversation}/items", {"items": items}, said)


async def turn(stage: Stage, pod: Pod, talk: Talk, *, key: str = "", text: str = "", **fields: object) -> int:
    """A turn that is not streamed; the echo answers what was said, other models what they like."""
    said = text or stage.ledger.text()
    body = {"input": said, "conversation": talk.conversation, **fields}
    return await _attempt(stage, pod, talk, "responses", body, [said], key)


async def _attempt(
    stage: Stage, pod: Pod, talk: Talk, path: str, body: dict[str, object], said: list[str], key: str = ""
) -> int:
    stage.ledger.operations += 1
    try:
        status, answer = await stage.post(pod, path, body, key)
    except (aiohttp.ClientError, TimeoutError) as error:
        stage.ledger.refused[type(error).__name__] += 1
        status, answer = 0, {}
    if status != 200:
        if answer:
            stage.ledger.refused[answer["error"]["code"]] += 1
        # What echoes it may be there too, and is told apart by its mark.
        talk.unsure.update([*said, *(answered(text) for text in said)])
        return status
    talk.unsure.difference_update(said)
    talk.told += said
    if "output" in answer:
        text = "".join(part["text"] for item in answer["output"] for part in item["content"])
        talk.told.append(answered(text))
        talk.responses.append(answer["id"])
    return status


def answered(text: str) -> str:
    """How the ledger calls a model's answer, since the echo says the same as its user."""
    return f"answer {text}"


def text_of(item: bytes) -> str:
    body = orjson.loads(item)
    content = body["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return answered(text) if body.get("role") == "assistant" else text


@dataclass
class Load:
    stage: Stage
    pods: list[Pod]
    """Who is asked, changed at any time; users go on with another one when theirs does not answer."""
    stopping: bool = False

    async def user(self, talk: Talk, number: int) -> None:
        turns = number
        while not self.stopping:
            pod = self.pods[turns % len(self.pods)]
            turns += 1
            if len(talk.told) >= LONGEST_TALK:
                talk = await self._another(talk, pod)
            act = turn if turns % TURN_EVERY == 0 else append
            if await act(self.stage, pod, talk) != 200:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _another(self, talk: Talk, pod: Pod) -> Talk:
        """The old one while there is no new one to be had."""
        try:
            return await begin_talk(self.stage, pod)
        except (AssertionError, aiohttp.ClientError, TimeoutError):
            return talk

    async def more(self, items: int, seconds: float = LOAD_SECONDS) -> None:
        """Wait until so many more items were acknowledged."""
        await self.reach(self.stage.ledger.acknowledged + items, seconds)

    async def reach(self, items: int, seconds: float = LOAD_SECONDS) -> None:
        await wait_until(lambda: self.stage.ledger.acknowledged >= items, f"{items} items", seconds)


@asynccontextmanager
async def load(stage: Stage, *pods: Pod, users: int = 4) -> AsyncIterator[Load]:
    """So many users with a conversation each. At the end they finish what they are at, and stop."""
    talks = [await begin_talk(stage, pods[0]) for _ in range(users)]
    one = Load(stage, list(pods))
    running = [asyncio.create_task(one.user(talk, number)) for number, talk in enumerate(talks)]
    try:
        yield one
    finally:
        one.stopping = True
        await asyncio.gather(*running)


async def fill(stage: Stage, *pods: Pod) -> None:
    """Go on until as many items were acknowledged as this fault shall have."""
    if stage.ledger.acknowledged < stage.items:
        async with load(stage, *pods) as users:
            await users.reach(stage.items)
