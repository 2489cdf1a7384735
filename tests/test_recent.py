"""A long history that a process remembers is the one in Redis, whoever changed that meanwhile."""

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from tests.conftest import StartService
from tests.running import Part, Service
from tests.talking import context, forget_hot, talk

pytestmark = pytest.mark.anyio

MODEL = "fake-bench-1"
ANSWER = "assistant: word1"
# Beyond api.recent.SHORTEST, so that both processes remember.
TURNS = 12


@pytest.fixture(scope="module")
async def other_service(start_service: StartService, upstream: Part, asking_service: Service) -> Service:
    """A second API on the same stores."""
    url = f"http://{upstream.host}:{upstream.port}/v1"
    assert asking_service.url
    return await start_service(OPENAI_BASE_URL=url, MODEL="fake-history", worker=False)


@pytest.fixture
async def clients(asking_service: Service, other_service: Service) -> AsyncIterator[list[AsyncOpenAI]]:
    async with talk(asking_service) as one, talk(other_service) as other:
        yield [one, other]


async def say(client: AsyncOpenAI, conversation: str, text: str) -> None:
    await client.responses.create(model=MODEL, input=text, conversation=conversation)


async def test_what_others_changed(clients: list[AsyncOpenAI], upstream: Part) -> None:
    one, other = clients
    conversation = (await one.conversations.create()).id
    expected: list[str] = []
    for number in range(TURNS):
        await say(one, conversation, f"turn {number}")
        expected += [f"user: turn {number}", ANSWER]
    # Turns by turns of another process, and an item without a turn.
    for number in range(TURNS, TURNS + 4):
        await say(clients[number % 2], conversation, f"turn {number}")
        expected += [f"user: turn {number}", ANSWER]
        assert await context(upstream, f"turn {number}") == expected[:-1]
    note = {"type": "message", "role": "user", "content": "a note"}
    await other.conversations.items.create(conversation, items=[note])  # type: ignore[list-item]
    expected.append("user: a note")
    # An item taken out of the middle, and one added, so that only the count is as before.
    first = (await one.conversations.items.list(conversation, order="asc", limit=1)).data[0]
    await other.conversations.items.delete(str(first.id), conversation_id=conversation)
    expected.pop(0)
    await other.conversations.items.create(conversation, items=[note])  # type: ignore[list-item]
    expected.append("user: a note")
    for client in clients:
        await say(client, conversation, f"after the delete {client.base_url}")
        expected += [f"user: after the delete {client.base_url}", ANSWER]
        assert await context(upstream, f"after the delete {client.base_url}") == expected[:-1]


async def test_a_rebuilt_history(clients: list[AsyncOpenAI], upstream: Part, redis: Redis) -> None:
    """Evicted and loaded again by the other process: what is remembered of the old list counts no more."""
    one, other = clients
    conversation = (await one.conversations.create()).id
    expected: list[str] = []
    for number in range(TURNS):
        await say(one, conversation, f"old {number}")
        expected += [f"user: old {number}", ANSWER]
    await forget_hot(redis)
    for number, client in enumerate((other, one, other)):
        await say(client, conversation, f"new {number}")
        expected += [f"user: new {number}", ANSWER]
        assert await context(upstream, f"new {number}") == expected[:-1]


async def test_a_thread_by_its_last_response(clients: list[AsyncOpenAI], upstream: Part) -> None:
    """Continued in place it is remembered; a branch from its middle has its own past."""
    one, other = clients
    ids: list[str] = []
    for number in range(TURNS):
        previous = {"previous_response_id": ids[-1]} if ids else {}
        ids.append((await one.responses.create(model=MODEL, input=f"step {number}", **previous)).id)  # type: ignore[call-overload]
    steps = [line for number in range(TURNS) for line in (f"user: step {number}", ANSWER)]
    for client in (one, other):
        await client.responses.create(model=MODEL, input=f"branch {client.base_url}", previous_response_id=ids[4])
        assert await context(upstream, f"branch {client.base_url}") == [*steps[:10], f"user: branch {client.base_url}"]
    await other.responses.create(model=MODEL, input="the end", previous_response_id=ids[-1])
    assert await context(upstream, "the end") == [*steps, "user: the end"]
