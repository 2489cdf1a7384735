"""`truncation`: what becomes of a question that is too long. To the fake upstream a word is a token."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from local.children import HOST
from tests.chatting import items_of, stream, terminal_of
from tests.conftest import StartService
from tests.running import Part, Service
from tests.talking import asked, context, talk

pytestmark = pytest.mark.anyio

WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def words(name: str, count: int) -> str:
    return " ".join(f"{name}{number}" for number in range(count))


async def chat(client: AsyncOpenAI, name: str, turns: int) -> str:
    """A conversation whose turns have 9 words and an answer of one each."""
    conversation = await client.conversations.create()
    for turn in range(turns):
        await client.responses.create(
            model="fake-context-99999", input=words(f"{name}.{turn}.", 9), conversation=conversation.id
        )
    return conversation.id


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_disabled_fails_and_drops_nothing(client: AsyncOpenAI, upstream: Part, streamed: bool) -> None:
    name = f"disabled{streamed}"
    conversation = await chat(client, name, 3)
    asking: Any = {"model": "fake-context-30", "conversation": conversation}
    if streamed:
        assert await terminal_of(await stream(client, f"{name} last", **asking)) == "response.failed"
    else:
        with pytest.raises(BadRequestError) as error:
            await client.responses.create(input=f"{name} last", truncation="disabled", **asking)
        assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")
    [question] = await asked(upstream, f"{name} last")
    assert len(question["body"]["messages"]) == 7
    assert len(await items_of(client, conversation)) == 6


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ["context", "blind"])
async def test_auto_drops_the_oldest_turns(client: AsyncOpenAI, upstream: Part, kind: str, streamed: bool) -> None:
    """The provider refuses what is too long, with numbers or without; the history stays whole."""
    name = f"auto{kind}{streamed}"
    conversation = await chat(client, name, 8)
    asking: Any = {"model": f"fake-{kind}-40", "conversation": conversation, "truncation": "auto"}
    asking["instructions"] = "Be brief"
    if streamed:
        assert await terminal_of(await stream(client, f"{name} last", **asking)) == "response.completed"
    else:
        response = await client.responses.create(input=f"{name} last", **asking)
        assert (response.truncation, response.output_text) == ("auto", "word1")
    sent = await context(upstream, f"{name} last")
    newest = [line for turn in (5, 6, 7) for line in (f"user: {words(f'{name}.{turn}.', 9)}", "assistant: word1")]
    kept = sent[1:-1]
    assert sent[0] == "system: Be brief"
    assert sent[-1] == f"user: {name} last"
    assert kept, "more was dropped than had to be"
    assert kept == newest[-len(kept) :]
    assert kept[0].startswith("user: ")
    assert len(await asked(upstream, f"{name} last")) <= 8
    assert len(await items_of(client, conversation)) == 18


async def test_what_is_new_is_never_dropped(client: AsyncOpenAI, upstream: Part) -> None:
    conversation = await chat(client, "new", 3)
    new: Any = [
        {"role": "user", "content": "all new " * 15},
        {"role": "assistant", "content": "well"},
        {"role": "user", "content": "all new"},
    ]
    with pytest.raises(BadRequestError) as error:
        await client.responses.create(model="fake-context-20", input=new, conversation=conversation, truncation="auto")
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")
    assert await context(upstream, "all new") == ["user: " + "all new " * 15, "assistant: well", "user: all new"]
    assert len(await items_of(client, conversation)) == 6


async def test_a_call_stays_with_its_output(client: AsyncOpenAI, upstream: Part) -> None:
    """The output comes two turns after its call; only what lies before both may go."""
    conversation = await client.conversations.create(
        items=[
            {"role": "developer", "content": "Always rhyme"},
            {"role": "user", "content": words("calls.early.", 20)},
            {"role": "assistant", "content": "well"},
            {"role": "user", "content": "calls weather"},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"role": "user", "content": words("calls.between.", 9)},
        ]
    )
    output: Any = [{"type": "function_call_output", "call_id": "c1", "output": "calls rain"}]
    await client.responses.create(
        model="fake-context-25", input=output, conversation=conversation.id, truncation="auto", tools=[WEATHER]
    )
    messages = (await asked(upstream, "calls rain"))[-1]["body"]["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "Always rhyme"),
        ("user", "calls weather"),
        ("assistant", None),
        ("user", words("calls.between.", 9)),
        ("tool", "calls rain"),
    ]


async def test_a_configured_context_is_kept_before_anything_is_sent(
    start_service: StartService, upstream: Part
) -> None:
    """For servers that cut by themselves and don't tell: this one would take everything."""
    file = upstream.child.log.parent / "contexts.toml"
    models = "".join(
        f"""
        [models.{kind}]
        targets = [{{ provider = "{kind}", model = "fake-bench-1" }}]
        context_tokens = {context_tokens}
        """
        for kind, context_tokens in (("vllm", 60), ("plain", 300))
    )
    file.write_text(
        f"""
        [providers.vllm]
        base_url = "http://{HOST}:{upstream.port}/vllm/v1"
        [providers.plain]
        base_url = "http://{HOST}:{upstream.port}/v1"
        {models}
        """,
        encoding="utf-8",
    )
    service = await start_service(UPSTREAMS_FILE=str(file))
    async with talk(service) as client:
        conversation = await client.conversations.create()
        for turn in range(8):
            await client.responses.create(model="plain", input=words(f"known.{turn}.", 9), conversation=conversation.id)
        asking: Any = {"conversation": conversation.id, "truncation": "auto", "max_output_tokens": 16}
        await client.responses.create(model="vllm", input="known vllm", **asking)
        [question] = await asked(upstream, "known vllm")
        counted = sum(len(str(message["content"]).split()) for message in question["body"]["messages"])
        assert 44 - 10 <= counted <= 44
        response = await client.responses.create(model="plain", input="known plain", **asking)
        [question] = await asked(upstream, "known plain")
        said = "".join(str(message["content"]) for message in question["body"]["messages"])
        assert 100 < len(said) / 4 < 300 - 16
        assert response.status == "completed"
        with pytest.raises(BadRequestError) as error:
            await client.responses.create(model="plain", input="alone too long " * 100, **asking)
        assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")
        assert "about" in error.value.message
        assert await asked(upstream, "alone too long") == []


async def test_the_context_of_the_only_upstream_is_a_setting(start_service: StartService, upstream: Part) -> None:
    url = f"http://{HOST}:{upstream.port}/llama/v1"
    service = await start_service(OPENAI_BASE_URL=url, MODEL="fake-bench-1", MODEL_CONTEXT_TOKENS="40", worker=False)
    past: Any = [
        {"role": role, "content": words(f"env.{turn}.", 9)} for turn in range(6) for role in ("user", "assistant")
    ]
    async with talk(service) as client:
        await client.responses.create(
            input=[*past, {"role": "user", "content": "env last"}], truncation="auto", max_output_tokens=16, store=False
        )
    assert len(await context(upstream, "env last")) == 3
