"""Turns on a real model server: real tokens, real `usage`, real streams, real errors."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream, BadRequestError
from openai.types.responses import Response, ResponseStreamEvent

from local.children import HOST
from tests.chatting import items_of, rest, stream, text_until
from tests.conftest import StartService
from tests.llama.conftest import CONTEXT_TOKENS
from tests.running import Part, Service
from tests.talking import talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

SHORT = 16
# More than one read of the network brings.
LONGER = 512
# The model's own words, for it spells all others in bytes.
LONG = "the time is now and what will you do with all of it "
# Some 70 tokens: 700 times does not fit into 8192.
TOO_LONG = LONG * 700


@pytest.fixture
async def client(llama_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(llama_service) as one:
        yield one


def tokens(response: Response) -> tuple[int, int]:
    assert response.usage is not None
    assert not response.usage.model_extra, "the usage is not the server's"
    return response.usage.input_tokens, response.usage.output_tokens


def estimated(response: Response) -> int:
    """The server sends no usage in a stream; what stands in for it says so."""
    assert response.usage is not None
    assert response.usage.model_extra == {"estimated": True}
    return response.usage.input_tokens


async def test_a_chat_remembers(client: AsyncOpenAI) -> None:
    """The second turn's question holds the first one and its answer, as the model counts them."""
    conversation = await client.conversations.create()
    first = await client.responses.create(input=LONG, conversation=conversation.id, max_output_tokens=SHORT)
    assert (first.status, first.model) == ("incomplete", "tiny")
    assert first.incomplete_details is not None
    assert first.incomplete_details.reason == "max_output_tokens"
    asked, answered = tokens(first)
    assert answered == SHORT
    second = await client.responses.create(input=LONG, conversation=conversation.id, max_output_tokens=SHORT)
    assert tokens(second)[0] >= 2 * asked + answered - SHORT // 2
    assert await items_of(client, conversation.id) == [LONG, first.output_text, LONG, second.output_text]


async def last_of(events: AsyncStream[ResponseStreamEvent], pieces: list[str] | None = None) -> Response:
    """Read to the end: the final response; the text goes to `pieces`."""
    final: Response | None = None
    async for event in events:
        if event.type == "response.output_text.delta" and pieces is not None:
            pieces.append(event.delta)
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            final = event.response
    assert final is not None
    return final


async def test_a_stream_remembers(client: AsyncOpenAI) -> None:
    events = await stream(client, LONG, max_output_tokens=SHORT)
    first = await last_of(events)
    events = await stream(client, LONG, previous_response_id=first.id, max_output_tokens=LONGER)
    pieces: list[str] = []
    final = await last_of(events, pieces)
    assert len(pieces) > 1
    assert "".join(pieces) == final.output_text
    assert final.status == "incomplete"
    assert estimated(final) > 2 * estimated(first)
    assert await client.responses.retrieve(final.id) == final


async def test_cancel_from_another_process(
    client: AsyncOpenAI, start_service: StartService, llama_service: Service
) -> None:
    """The server is then free for the next question: it does one at a time."""
    other = await start_service(
        OPENAI_BASE_URL=llama_service.environment["OPENAI_BASE_URL"], MODEL="tiny", worker=False
    )
    conversation = await client.conversations.create()
    events = await stream(client, LONG, conversation=conversation.id)
    opened = await anext(aiter(events))
    assert opened.type == "response.created"
    said = await text_until(events, 3)
    async with talk(other) as elsewhere:
        cancelled = await elsewhere.responses.cancel(opened.response.id)
    remaining, terminal = await rest(events)
    assert (terminal, cancelled.status) == ("response.incomplete", "cancelled")
    assert cancelled.output_text.startswith(said)
    assert await items_of(client, conversation.id) == [LONG, said + remaining]
    after = await client.responses.create(input=LONG, conversation=conversation.id, max_output_tokens=SHORT)
    assert after.status == "incomplete"


async def test_in_the_background(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    queued = await client.responses.create(
        input=LONG, conversation=conversation.id, max_output_tokens=SHORT, background=True
    )
    assert queued.status == "queued"

    async def ended() -> Response | None:
        response = await client.responses.retrieve(queued.id)
        return None if response.status in ("queued", "in_progress") else response

    response = await wait_until(ended, "the end of the response")
    assert response is not None
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert estimated(response) > 0
    assert await items_of(client, conversation.id) == [LONG, response.output_text]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_over_the_context(client: AsyncOpenAI, streamed: bool) -> None:
    conversation = await client.conversations.create()
    if streamed:
        events = await stream(client, TOO_LONG, conversation=conversation.id)
        failed = await last_of(events)
        assert failed.status == "failed"
        assert failed.error is not None
        assert str(failed.error.code) == "context_length_exceeded", failed.error
    else:
        with pytest.raises(BadRequestError) as error:
            await client.responses.create(input=TOO_LONG, conversation=conversation.id)
        assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")
        assert "8192" in error.value.message
    assert await items_of(client, conversation.id) == []


async def test_input_is_counted(client: AsyncOpenAI) -> None:
    """This server counts text alone, and says nothing of what its template adds: "role: " and a line's end."""
    conversation = await client.conversations.create()
    first = await client.responses.create(input=LONG, conversation=conversation.id, max_output_tokens=SHORT)
    counted = await client.responses.input_tokens.count(
        model="tiny", input=LONG, conversation=conversation.id, instructions="be good"
    )
    second = await client.responses.create(
        input=LONG, conversation=conversation.id, instructions="be good", max_output_tokens=SHORT
    )
    assert counted.model_extra == {"estimated": True}
    form = len("system: user: assistant: user: assistant: ") + 5 * len("\n ")
    assert 0 <= tokens(second)[0] - counted.input_tokens <= form
    assert tokens(first)[0] < counted.input_tokens


async def test_truncation_makes_a_long_chat_fit(client: AsyncOpenAI) -> None:
    """Eight turns of some 1,400 tokens: `disabled` fails, `auto` asks with the last ones."""
    turns: Any = [
        {"role": role, "content": text}
        for number in range(8)
        for role, text in (("user", f"{number} " + LONG * 20), ("assistant", "ok"))
    ]
    conversation = await client.conversations.create(items=turns)
    asking: Any = {"input": LONG, "conversation": conversation.id, "max_output_tokens": SHORT}
    with pytest.raises(BadRequestError) as error:
        await client.responses.create(**asking)
    assert error.value.code == "context_length_exceeded"
    answered = await client.responses.create(**asking, truncation="auto")
    assert CONTEXT_TOKENS / 2 < tokens(answered)[0] < CONTEXT_TOKENS
    assert len(await items_of(client, conversation.id)) == 16 + 2


async def test_compaction_by_the_model(start_service: StartService, llama: Part, folder: Path) -> None:
    """No summary of this model's comes to an end, so the file gives it one."""
    file = folder / "upstreams.toml"
    file.write_text(
        f"""
        [providers.llama]
        base_url = "http://{HOST}:{llama.port}/v1"
        [models.tiny]
        targets = [{{ provider = "llama" }}]
        max_output_tokens = 64
        """,
        encoding="utf-8",
    )
    service = await start_service(UPSTREAMS_FILE=str(file))
    async with talk(service) as client:
        first = await client.responses.create(input=LONG * 60, max_output_tokens=SHORT)
        compacted = await client.responses.compact(model="tiny", previous_response_id=first.id)
        assert compacted.usage.output_tokens == 64
        going_on: Any = [compacted.output[-1].to_dict(), {"role": "user", "content": LONG}]
        last = await client.responses.create(input=going_on, max_output_tokens=SHORT)
        assert 64 < tokens(last)[0] < tokens(first)[0]
