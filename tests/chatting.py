"""Turns as a user takes them, with the official SDK."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI, AsyncStream
from openai.types.responses import ResponseStreamEvent

from local.children import HOST
from tests.running import Part, Service

TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[AsyncOpenAI]:
    """A client that retries nothing by itself."""
    async with AsyncOpenAI(base_url=service.url, api_key="none", max_retries=0, timeout=90) as client:
        yield client


def with_upstream(fake: Part, **settings: str) -> dict[str, str]:
    """Settings of a service whose models are those of tests/fake_upstream.py."""
    return {
        "OPENAI_BASE_URL": f"http://{HOST}:{fake.port}/v1",
        "OPENAI_API_KEY": "sk-test",
        "MODEL": "fake",
        **settings,
    }


async def ask(client: AsyncOpenAI, text: str, **body: Any) -> str:
    """A turn that is not streamed; its text."""
    response = await client.responses.create(input=text, **body)
    assert response.status == "completed", response
    answer: str = response.output_text
    return answer


async def stream(client: AsyncOpenAI, text: str, **body: Any) -> AsyncStream[ResponseStreamEvent]:
    events: AsyncStream[ResponseStreamEvent] = await client.responses.create(input=text, stream=True, **body)
    return events


async def text_until(events: AsyncStream[ResponseStreamEvent], words: int) -> str:
    """Read on until so many more words have come; the text. One delta may bring several."""
    text = ""
    async for event in events:
        if event.type == "response.output_text.delta":
            text += event.delta
            if len(text.split()) >= words:
                break
    return text


async def terminal_of(events: AsyncStream[ResponseStreamEvent]) -> str:
    """The type of the terminal event, as soon as it comes."""
    return await anext(event.type async for event in events if event.type in TERMINAL)


async def rest(events: AsyncStream[ResponseStreamEvent]) -> tuple[str, str]:
    """Read to the end: (text of the remaining deltas, type of the terminal event)."""
    pieces, terminal = [], ""
    async for event in events:
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
        terminal = event.type
    return "".join(pieces), terminal


async def items_of(client: AsyncOpenAI, conversation: str) -> list[str]:
    """The texts of a conversation's messages, oldest first."""
    return [
        part.text
        async for item in client.conversations.items.list(conversation, order="asc", limit=100)
        if item.type == "message"
        for part in item.content
        if part.type in ("input_text", "output_text")
    ]
