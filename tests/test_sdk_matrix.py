"""Every endpoint with every way in which the official SDK calls it: synchronous and asynchronous, streams and their
accumulators, pages, raw and streamed answers. docs/api.md has the table of these tests, endpoint by endpoint."""

import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai.pagination import AsyncConversationCursorPage, SyncConversationCursorPage
from openai.types.conversations import Conversation
from pydantic import BaseModel

from tests.running import Part, Service
from tests.talking import release, talk, talk_now

pytestmark = pytest.mark.anyio

SAID = "user: hello"
HELLO: Any = {"role": "user", "content": "hello"}
TERMINAL = {"completed", "failed", "incomplete", "cancelled"}


class City(BaseModel):
    city: str
    people: int


OSLO = City(city="Oslo", people=700_000)


@asynccontextmanager
async def client_of(service: Service, kind: str) -> AsyncIterator[Any]:
    if kind == "async":
        async with talk(service) as one:
            yield one
    else:
        with talk_now(service) as one:
            yield one


@pytest.fixture(params=["async", "sync"])
async def client(asking_service: Service, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Both have the same methods; what they give is awaited, iterated and entered by the three functions below."""
    async with client_of(asking_service, request.param) as one:
        yield one


@pytest.fixture(params=["async", "sync"])
async def echo(service: Service, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A client of a service whose model says what it hears, which may be JSON."""
    async with client_of(service, request.param) as one:
        yield one


async def done(call: Any) -> Any:
    return await call if inspect.isawaitable(call) else call


async def every(many: Any) -> list[Any]:
    """All entries of all pages, or all events."""
    many = many if hasattr(many, "__aiter__") else await done(many)
    return [one async for one in many] if hasattr(many, "__aiter__") else list(many)


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    if hasattr(manager, "__aenter__"):
        async with manager as one:
            yield one
    else:
        with manager as one:
            yield one


async def test_create_a_response(client: Any) -> None:
    response = await done(client.responses.create(input="hello"))
    assert (response.output_text, response.status) == (SAID, "completed")
    raw = await done(client.responses.with_raw_response.create(input="hello"))
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse().output_text == SAID
    async with entered(client.responses.with_streaming_response.create(input="hello")) as streamed:
        assert streamed.status_code == 200
        assert (await done(streamed.parse())).output_text == SAID


async def test_stream_a_response(client: Any) -> None:
    events = await every(client.responses.create(input="hello", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
    assert events[-1].response.output_text == SAID
    async with entered(client.responses.stream(model="fake-history", input="hello")) as stream:
        kinds = [event.type for event in await every(stream)]
        final = await done(stream.get_final_response())
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == SAID
    async with entered(client.responses.with_streaming_response.create(input="hello", stream=True)) as streamed:
        lines = await every(streamed.iter_lines())
    assert [line for line in lines if line][-1] == "data: [DONE]"


async def test_parse_a_response(echo: Any) -> None:
    parsed = await done(echo.responses.parse(model="echo", input=OSLO.model_dump_json(), text_format=City))
    assert parsed.output_parsed == OSLO
    async with entered(echo.responses.stream(model="echo", input=OSLO.model_dump_json(), text_format=City)) as stream:
        assert (await done(stream.get_final_response())).output_parsed == OSLO


async def test_retrieve_a_response(client: Any) -> None:
    made = await done(client.responses.create(input="hello", stream=True))
    events = await every(made)
    final = events[-1].response
    assert await done(client.responses.retrieve(final.id)) == final
    resumed = await every(client.responses.retrieve(final.id, stream=True, starting_after=2))
    assert resumed == events[3:]
    async with entered(client.responses.stream(response_id=final.id, starting_after=1)) as stream:
        assert [event.sequence_number for event in await every(stream)] == list(range(2, len(events)))


async def test_cancel_a_response(client: Any, upstream: Part) -> None:
    name = f"matrix-{type(client).__name__}"
    queued = await done(client.responses.create(model=f"fake-hold-{name}", input="hello", background=True))
    assert queued.status == "queued"
    cancelled = await done(client.responses.cancel(queued.id))
    assert cancelled.status == "cancelled"
    assert (await done(client.responses.retrieve(queued.id))).status == "cancelled"
    await release(upstream, name)


async def test_poll_a_background_response(client: Any) -> None:
    response = await done(client.responses.create(input="hello", background=True))
    tries = 0
    while response.status not in TERMINAL and tries < 2000:
        response = await done(client.responses.retrieve(response.id))
        tries += 1
    assert response.output_text == SAID


async def test_delete_a_response(client: Any) -> None:
    response = await done(client.responses.create(input="hello"))
    assert await done(client.responses.delete(response.id)) is None
    with pytest.raises(openai.NotFoundError):
        await done(client.responses.retrieve(response.id))


async def test_list_input_items(client: Any) -> None:
    inputs = [{"role": "user", "content": f"text {number}"} for number in range(5)]
    response = await done(client.responses.create(input=inputs))
    items = await every(client.responses.input_items.list(response.id, limit=2, order="asc"))
    assert [item.content[0].text for item in items] == [f"text {number}" for number in range(5)]
    page = await done(client.responses.input_items.list(response.id, limit=2))
    assert page.has_more
    assert page.has_next_page()
    assert len((await done(page.get_next_page())).data) == 2
    assert len(await every(page.iter_pages())) == 3


async def test_count_input_tokens(client: Any) -> None:
    counted = await done(client.responses.input_tokens.count(model="fake-history", input="hello"))
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens > 0


async def test_compact_a_history(client: Any) -> None:
    compacted = await done(client.responses.compact(model="fake-history", input="hello"))
    assert compacted.object == "response.compaction"
    assert [item.type for item in compacted.output] == ["message", "compaction"]


async def test_a_conversation(client: Any) -> None:
    made = await done(client.conversations.create(metadata={"topic": "tea"}))
    assert await done(client.conversations.retrieve(made.id)) == made
    updated = await done(client.conversations.update(made.id, metadata={"topic": "coffee"}))
    assert updated.metadata == {"topic": "coffee"}
    raw = await done(client.conversations.with_raw_response.retrieve(made.id))
    assert raw.parse() == updated
    deleted = await done(client.conversations.delete(made.id))
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "conversation.deleted")
    with pytest.raises(openai.NotFoundError):
        await done(client.conversations.retrieve(made.id))


async def test_list_conversations(client: Any) -> None:
    """An extension: the SDK has no method for it, but the pages are of the form that it can go through."""
    topic = f"matrix {type(client).__name__}"
    made = [await done(client.conversations.create(metadata={"topic": topic})) for _ in range(5)]
    is_async = isinstance(client, openai.AsyncOpenAI)
    page = AsyncConversationCursorPage[Conversation] if is_async else SyncConversationCursorPage[Conversation]
    options = {"params": {"limit": 2, "metadata[topic]": topic}}
    listed = await every(client.get_api_list("/conversations", model=Conversation, page=page, options=options))
    assert listed == made[::-1]


async def test_export_a_conversation(client: Any) -> None:
    conversation = await done(client.conversations.create(items=[HELLO, HELLO]))
    items = await every(client.conversations.items.list(conversation.id, order="asc"))
    export = await done(client.get(f"/conversations/{conversation.id}/export", cast_to=httpx2.Response))
    head, *rest = (json.loads(line) for line in export.text.splitlines())
    assert head == conversation.to_dict()
    assert rest == [item.to_dict() for item in items]


async def test_items_of_a_conversation(client: Any) -> None:
    conversation = await done(client.conversations.create(items=[HELLO]))
    made = await done(client.conversations.items.create(conversation.id, items=[HELLO, HELLO]))
    assert len(made.data) == 2
    await done(client.responses.create(conversation=conversation.id, input="hello"))
    items = await every(client.conversations.items.list(conversation.id, limit=2, order="asc"))
    assert [item.role for item in items] == ["user"] * 4 + ["assistant"]
    assert items[1:3] == made.data
    pages = await every((await done(client.conversations.items.list(conversation.id, limit=2))).iter_pages())
    assert [len(page.data) for page in pages] == [2, 2, 1]
    one = await done(client.conversations.items.retrieve(items[0].id, conversation_id=conversation.id))
    assert one == items[0]
    left = await done(client.conversations.items.delete(items[0].id, conversation_id=conversation.id))
    assert left.id == conversation.id
    assert await every(client.conversations.items.list(conversation.id, limit=1, order="asc")) == items[1:]


async def test_chat_completions(client: Any) -> None:
    completion = await done(client.chat.completions.create(model="fake-history", messages=[HELLO]))
    assert completion.choices[0].message.content == SAID
    chunks = await every(client.chat.completions.create(model="fake-history", messages=[HELLO], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    async with entered(client.chat.completions.stream(model="fake-history", messages=[HELLO])) as stream:
        await every(stream)
        final = await done(stream.get_final_completion())
    assert final.choices[0].message.content == SAID
    raw = await done(client.chat.completions.with_raw_response.create(model="fake-history", messages=[HELLO]))
    assert raw.parse().choices[0].message.content == SAID


async def test_parse_a_chat_completion(echo: Any) -> None:
    messages = [{"role": "user", "content": OSLO.model_dump_json()}]
    parsed = await done(echo.chat.completions.parse(model="echo", messages=messages, response_format=City))
    assert parsed.choices[0].message.parsed == OSLO


async def test_talk_over_a_websocket(client: Any) -> None:
    asked: dict[str, Any] = {"input": "hello"}
    async with entered(client.responses.connect()) as connection:
        for wanted in (SAID, f"{SAID}\nassistant: {SAID}\nuser: again"):
            await done(connection.response.create(model="fake-history", **asked))
            event = await done(connection.recv())
            while event.type != "response.completed":
                event = await done(connection.recv())
            assert event.response.output[0].content[0].text == wanted
            asked = {"input": "again", "previous_response_id": event.response.id}


async def test_models(client: Any) -> None:
    models = await every(client.models.list())
    assert "fake" in [model.id for model in models]
    assert await done(client.models.retrieve("fake")) == next(model for model in models if model.id == "fake")


async def test_errors_are_the_sdks_own(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await done(client.responses.create(input=5))
    assert (bad.value.code, bad.value.param, bad.value.type) == ("invalid_type", "input", "invalid_request_error")
    assert str(bad.value.request_id).startswith("req_")
    with pytest.raises(openai.NotFoundError) as missing:
        await done(client.responses.retrieve("resp_0"))
    assert missing.value.code == "response_not_found"
    with pytest.raises(openai.InternalServerError) as failed:
        await done(client.responses.create(model="fake-500", input="hello"))
    assert failed.value.code == "upstream_error"
    with pytest.raises(openai.RateLimitError) as limited:
        await done(client.responses.create(model="fake-429-later", input="hello"))
    assert limited.value.response.headers["retry-after"] == "77"
