"""An upstream that fails, as the service's own clients see it: nothing is told as whole that is not."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI
from openai.types.responses import Response
from redis.asyncio import Redis

from tests.conftest import StartService
from tests.running import Part, Service
from tests.talking import asked, context, drained, forget_hot, talk, text_of

pytestmark = pytest.mark.anyio

KEY = "sk-upstream-secret"
# What an attacker or a curious client could learn from a proxy's page or a provider's error.
SECRETS = ("<", "html", "proxy-7", KEY, "127.0.0.1")
BEGINNING = "word1 word2 word3 "


@pytest.fixture(scope="module")
async def asking_service(start_service: StartService, upstream: Part) -> Service:
    url = f"http://{upstream.host}:{upstream.port}/v1"
    patience = {f"UPSTREAM_{what}_SECONDS": "2" for what in ("FIRST_TOKEN", "BETWEEN_TOKENS", "WHOLE")}
    return await start_service(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, MODEL="fake-history", **patience)


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


async def streamed(client: AsyncOpenAI, **body: Any) -> Response:
    """The response as its terminal event tells it."""
    last = [event async for event in await client.responses.create(stream=True, **body)][-1]
    assert last.type in ("response.completed", "response.failed", "response.incomplete")
    ended: Response = last.response
    return ended


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["fake-429-then-ok", "fake-500-then-ok", "fake-503-then-ok-2"])
async def test_a_passing_failure_is_not_seen(client: AsyncOpenAI, upstream: Part, model: str, stream: bool) -> None:
    question = f"{model} {stream}"
    if stream:
        response = await streamed(client, model=model, input=question)
    else:
        response = await client.responses.create(model=model, input=question)
    assert response.status == "completed"
    assert response.output_text.startswith(BEGINNING)
    requests = await asked(upstream, question)
    assert len(requests) == (3 if model.endswith("-2") else 2)
    assert {request["headers"]["authorization"] for request in requests} == {f"Bearer {KEY}"}


FAILURES = [
    ("fake-400", 400, "upstream_rejected"),
    ("fake-401", 502, "upstream_auth"),
    ("fake-404", 400, "upstream_rejected"),
    ("fake-429", 429, "rate_limit_exceeded"),
    ("fake-quota", 429, "rate_limit_exceeded"),
    ("fake-500", 502, "upstream_error"),
    ("fake-context", 400, "context_length_exceeded"),
    ("fake-context-llama", 400, "context_length_exceeded"),
    ("fake-echo-key", 400, "upstream_rejected"),
    ("fake-html", 502, "upstream_error"),
    ("fake-html-502", 502, "upstream_error"),
    ("fake-html-in-json", 400, "upstream_rejected"),
    ("fake-redirect", 502, "upstream_error"),
    ("fake-empty", 502, "upstream_error"),
    ("fake-openrouter-error-first", 400, "upstream_rejected"),
    ("fake-hang", 504, "upstream_timeout"),
]


@pytest.mark.parametrize(("model", "status", "code"), FAILURES)
async def test_a_failure_before_the_first_token(
    client: AsyncOpenAI, upstream: Part, redis: Redis, model: str, status: int, code: str
) -> None:
    """An HTTP error, or `response.failed`; the conversation stays as it was, the response keeps its input."""
    conversation = (await client.conversations.create(items=[{"role": "user", "content": "before"}])).id
    with pytest.raises(APIStatusError) as error:
        await client.responses.create(model=model, input="vain", conversation=conversation)
    told = error.value
    assert (told.status_code, told.code) == (status, code)
    assert not [secret for secret in SECRETS if secret in told.message.lower()]

    failed = await streamed(client, model=model, input="vain", conversation=conversation)
    assert (failed.status, failed.output, failed.usage) == ("failed", [], None)
    assert failed.error is not None
    assert failed.error.code == code
    assert not [secret for secret in SECRETS if secret in failed.error.message.lower()]
    for _ in range(2):
        assert await client.responses.retrieve(failed.id) == failed
        assert [text_of(item) async for item in client.responses.input_items.list(failed.id)] == ["vain"]
        assert [text_of(item) async for item in client.conversations.items.list(conversation)] == ["before"]
        await forget_hot(redis)
    question = f"after {model}"
    await client.responses.create(input=question, conversation=conversation)
    assert await context(upstream, question) == ["user: before", f"user: {question}"]


async def test_when_to_come_back_is_told(client: AsyncOpenAI) -> None:
    with pytest.raises(APIStatusError) as error:
        await client.responses.create(model="fake-429-later", input="x")
    assert (error.value.status_code, error.value.response.headers["retry-after"]) == (429, "77")


@pytest.mark.parametrize(
    ("model", "text", "code"),
    [
        ("fake-cut", BEGINNING, "upstream_cut"),
        ("fake-reset", BEGINNING, "upstream_cut"),
        ("fake-hang-middle", BEGINNING, "upstream_timeout"),
        ("fake-vllm-error", "Hello world", "upstream_error"),
        ("fake-openrouter-error", "Hello world", "upstream_error"),
        ("fake-finish-error", "Hello world", "upstream_error"),
        ("fake-broken-json", "Hello world", "upstream_error"),
        ("fake-odd-shape", "Hello world", "upstream_error"),
    ],
)
async def test_a_failure_in_the_middle(
    client: AsyncOpenAI, upstream: Part, redis: Redis, model: str, text: str, code: str
) -> None:
    """Never `completed`; what came is kept, in the response and in the conversation, and marked as not whole."""
    conversation = (await client.conversations.create()).id
    failed = await streamed(client, model=model, input="asked", conversation=conversation)
    assert (failed.status, failed.output_text) == ("failed", text)
    assert failed.error is not None
    assert failed.error.code == code
    [item] = failed.output
    assert item.to_dict()["status"] == "incomplete"
    for _ in range(2):
        assert await client.responses.retrieve(failed.id) == failed
        listed = (await client.conversations.items.list(conversation)).data
        assert [text_of(one) for one in listed] == [text, "asked"]
        assert listed[0].to_dict() == item.to_dict()
        await forget_hot(redis)
    question = f"after {model}"
    await client.responses.create(input=question, conversation=conversation)
    assert await context(upstream, question) == ["user: asked", f"assistant: {text}", f"user: {question}"]


async def test_an_upstream_that_is_away(start_service: StartService, upstream: Part, redis: Redis) -> None:
    """Nobody listens there any more; the service still answers everything else."""
    url = f"http://{upstream.host}:{upstream.port}/v1"
    lonely = await start_service(worker=False, OPENAI_BASE_URL=url, MODEL="fake")
    await upstream.kill()
    try:
        async with talk(lonely) as client:
            with pytest.raises(APIStatusError) as error:
                await client.responses.create(input="x")
            assert (error.value.status_code, error.value.code) == (502, "upstream_error")
            assert not [secret for secret in SECRETS if secret in error.value.message.lower()]
            assert (await streamed(client, input="x")).status == "failed"
            with pytest.raises(APIStatusError):
                await client.models.retrieve("fake")
            assert (await client.conversations.create(metadata={"a": "b"})).metadata == {"a": "b"}
    finally:
        await upstream.start()
    await drained(redis)
