"""Users who talk until they are told to stop: cheap appends of 20 items, between them turns of all kinds, and looks."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tests.chaos.acts import append, begin_talk, delete, keyed_turn, look, streamed_turn, turn
from tests.chaos.said import Talk
from tests.chaos.scene import Address, Scene
from tests.chaos.stage import Pod, Stage
from tests.waiting import wait_until

# One in so many acts is a turn: asked at once, streamed, or with a key, one after the other.
TURN_EVERY = 8
# After so many acts that went well a user looks at what another process shows of it.
LOOK_EVERY = 12
LOAD_SECONDS = 300.0
# Then a user begins another conversation: each turn reads all of one, and so does each page of a listing.
LONGEST_TALK = 2000
# One in so many of those is deleted.
DELETE_EVERY = 4
# After something went wrong, as any client would.
PAUSE_SECONDS = 0.05


@dataclass
class Load:
    stage: Scene
    pods: Sequence[Address]
    """Who is asked, changed at any time; users go on with another one when theirs does not answer."""
    rest_seconds: float = 0
    """Between two acts of a user; without one they talk as fast as they are answered."""
    stopping: bool = False

    async def user(self, talk: Talk, number: int) -> None:
        acts, ended = number, number
        while not self.stopping:
            pod = self.pods[acts % len(self.pods)]
            acts += 1
            await asyncio.sleep(self.rest_seconds)
            if len(talk.told) >= LONGEST_TALK and talk.asking is None:
                ended += 1
                talk = await self._another(talk, pod, ending=ended % DELETE_EVERY == 0)
            elif await self._act(pod, talk, acts) != 200:
                await asyncio.sleep(PAUSE_SECONDS)
            elif acts % LOOK_EVERY == 0:
                await look(self.stage, self.pods[acts % len(self.pods)], talk)

    async def _act(self, pod: Address, talk: Talk, acts: int) -> int:
        if talk.asking is not None:
            return await keyed_turn(self.stage, pod, talk)
        if acts % TURN_EVERY:
            return await append(self.stage, pod, talk)
        match acts // TURN_EVERY % 3:
            case 0:
                return await turn(self.stage, pod, talk)
            case 1:
                return await keyed_turn(self.stage, pod, talk)
            case _:
                return 200 if await streamed_turn(self.stage, pod, talk) == "response.completed" else 0

    async def _another(self, talk: Talk, pod: Address, *, ending: bool) -> Talk:
        """The old one while there is no new one to be had."""
        if ending and talk.deleted is not True and await delete(self.stage, pod, talk) != 200:
            await asyncio.sleep(PAUSE_SECONDS)
        try:
            return await begin_talk(self.stage, pod)
        except (AssertionError, aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(PAUSE_SECONDS)
            return talk

    async def more(self, items: int, seconds: float = LOAD_SECONDS) -> None:
        """Wait until so many more items were acknowledged."""
        await self.reach(self.stage.ledger.acknowledged + items, seconds)

    async def reach(self, items: int, seconds: float = LOAD_SECONDS) -> None:
        await wait_until(lambda: self.stage.ledger.acknowledged >= items, f"{items} items", seconds)


@asynccontextmanager
async def load(stage: Scene, *pods: Address, users: int = 4, rest_seconds: float = 0) -> AsyncIterator[Load]:
    """So many users with a conversation each. At the end they finish what they are at, and stop."""
    talks = [await begin_talk(stage, pods[0]) for _ in range(users)]
    one = Load(stage, pods, rest_seconds)
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
