"""Users who listen to slow answers with the official SDK, and go on listening elsewhere when a connection breaks."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
from openai import APIConnectionError, AsyncStream, OpenAIError
from openai.types.responses import ResponseStreamEvent

from cluster.town import Town
from tests.chaos.acts import TERMINAL, begin_talk
from tests.chaos.said import Talk, answered

BROKEN = (APIConnectionError, httpx2.HTTPError)
# Some seconds for an answer of nine characters (upstream.py): longer than a pod needs to be replaced at its best.
SLOW_MODEL = "slow-400"
# Each of the pods that hold an answer may go once.
RESUMES = 3


@dataclass
class Answer:
    """What one stream has told so far."""

    response: str = ""
    number: int = -1
    """Of its last event."""
    text: str = ""
    end: str = ""

    def hear(self, event: ResponseStreamEvent) -> None:
        self.number = event.sequence_number
        if event.type == "response.created":
            self.response = event.response.id
        elif event.type == "response.output_text.delta":
            self.text += event.delta
        elif event.type in TERMINAL:
            self.end = event.type


@dataclass
class Listeners:
    town: Town
    may_be_cut: bool = False
    """An answer may end as incomplete: its process was killed."""
    answered: int = 0
    cut: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)
    """What a client saw that was neither a whole answer nor a connection that it could resume."""
    stopping: bool = False

    async def listen(self, talk: Talk) -> None:
        while not self.stopping:
            said, answer = self.town.ledger.text(), Answer()
            talk.doubt([said])
            try:
                await self._whole(talk, said, answer)
            except (OpenAIError, httpx2.HTTPError) as error:
                self.wrong.append(f"{type(error).__name__}: {error} ({answer})")
            if answer.end == "response.completed":
                talk.hear([said, answered(answer.text)])
                talk.responses.append(answer.response)
                self.answered += 1
            elif self.may_be_cut and answer.end == "response.incomplete":
                talk.unsure.add(answered(answer.text))
                self.cut += 1
            else:
                talk.unsure.add(answered(answer.text))
                self.wrong.append(f"no whole answer: {answer}")

    async def _whole(self, talk: Talk, said: str, answer: Answer) -> None:
        """To the terminal event, with so many resumes."""
        # By itself the SDK tries again what failed before an answer began: where that may not happen it would hide it.
        openai = self.town.openai if self.may_be_cut else self.town.openai.with_options(max_retries=0)
        key = {"Idempotency-Key": str(uuid.uuid4())}
        stream = await openai.responses.create(
            input=said, conversation=talk.conversation, model=SLOW_MODEL, stream=True, extra_headers=key
        )
        for _ in range(RESUMES):
            try:
                await _to_the_end(stream, answer)
            except BROKEN:
                if not answer.response:
                    raise
            if answer.end:
                return
            self.resumed += 1
            stream = await openai.responses.retrieve(answer.response, stream=True, starting_after=answer.number)


async def _to_the_end(stream: AsyncStream[ResponseStreamEvent], answer: Answer) -> None:
    async with stream:
        async for event in stream:
            answer.hear(event)


@asynccontextmanager
async def listeners(town: Town, count: int, *, may_be_cut: bool = False) -> AsyncIterator[Listeners]:
    """So many, each in a conversation of its own; at the end they hear their answers out."""
    talks = [await begin_talk(town, town.door) for _ in range(count)]
    all_of_them = Listeners(town, may_be_cut)
    running = [asyncio.create_task(all_of_them.listen(talk)) for talk in talks]
    try:
        yield all_of_them
    finally:
        all_of_them.stopping = True
        await asyncio.gather(*running)
