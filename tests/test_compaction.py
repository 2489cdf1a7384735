"""Compaction: asked for, and by itself in a turn. The fake upstream's summaries tell how many words they stand for."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import ResponseCompactionItem
from redis.asyncio import Redis

from tests.chatting import items_of
from tests.running import Part, Service
from tests.talking import asked, context, forget_hot, talk

pytestmark = pytest.mark.anyio

THRESHOLD: Any = [{"type": "compaction", "compact_threshold": 1000}]
# An estimate of 1,000 tokens, where nobody counts.
LONG = "word " * 900
TOLD = "What follows is a summary of this conversation so far, for you to go on from.\n\n"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def test_a_history_is_made_short(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """The output goes on as input, in which the model reads the summary in the place of all before it."""
    first = await client.responses.create(model="fake-bench-2", input="compact one")
    second = await client.responses.create(
        model="fake-bench-2", input=[user("compact two")], previous_response_id=first.id
    )
    compacted = await client.responses.compact(
        model="fake-bench-2", previous_response_id=second.id, input="compact three", instructions="Be a poet"
    )
    assert compacted.object == "response.compaction"
    outputs = [item.to_dict(warnings=False) for item in compacted.output]
    said = [item["content"][0]["text"] for item in outputs if item["type"] == "message"]  # type: ignore[index]
    assert said == ["compact one", "compact two", "compact three"]
    assert isinstance(compacted.output[-1], ResponseCompactionItem)
    assert compacted.usage.output_tokens == 1
    [summarizing] = await asked(upstream, "Be a poet")
    assert summarizing["body"]["messages"][1]["content"] == (
        "<transcript>\nuser: compact one\n\nassistant: word1 word2\n\nuser: compact two\n\n"
        "assistant: word1 word2\n\nuser: compact three\n</transcript>"
    )
    going_on: Any = [*outputs, user("compact four")]
    last = await client.responses.create(input=going_on, instructions="Be a poet still")
    told = f"system: Be a poet still\n\n{TOLD}15 words"
    assert await context(upstream, "compact four") == [told, "user: compact four"]
    await forget_hot(redis)
    await client.responses.create(input="compact five", previous_response_id=last.id)
    assert (await context(upstream, "compact five"))[0] == f"system: {TOLD}15 words"
    again = await client.responses.compact(model="fake-bench-2", input=going_on)
    assert again.output[-1] != compacted.output[-1]
    [summarizing] = [one for one in await asked(upstream, "compact four") if "<transcript>" in str(one["body"])]
    assert "15 words" in summarizing["body"]["messages"][0]["content"]
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(compacted.id)


async def test_what_can_not_be_compacted(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        await client.responses.compact(model="fake", previous_response_id="resp_none")
    assert missing.value.code == "response_not_found"
    with pytest.raises(BadRequestError) as nothing:
        await client.responses.compact(model="fake")
    assert (nothing.value.code, nothing.value.param) == ("missing_required_parameter", "input")
    with pytest.raises(APIStatusError) as failed:
        await client.responses.compact(model="fake-500", input="x")
    assert (failed.value.status_code, failed.value.code) == (502, "upstream_error")


async def test_a_history_over_the_context_is_compacted_in_parts(client: AsyncOpenAI, upstream: Part) -> None:
    """Each half with the summary of what came before it; together they cost what all cost."""
    lines: Any = [user(f"parts {number} " + "more " * 100) for number in range(8)]
    compacted = await client.responses.compact(model="fake-context-1600", input=lines)
    asking = [one["body"] for one in await asked(upstream, "parts 0") + await asked(upstream, "parts 7")]
    assert {one["max_tokens"] for one in asking} == {4096, 2048, 1024}
    last = asking[-1]["messages"]
    assert "The summary so far" in last[0]["content"]
    assert "parts 7" in last[1]["content"]
    assert compacted.usage.output_tokens > 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_turn_compacts_by_itself(client: AsyncOpenAI, upstream: Part, redis: Redis, streamed: bool) -> None:
    """All items stay in the conversation, hot and cold; only the model's questions begin with the summary."""
    name = f"auto {streamed}"
    conversation = await client.conversations.create(items=[user(f"{name} old {LONG}"), user(f"{name} older")])
    await client.responses.create(model="fake-bench-2", input=f"{name} first", conversation=conversation.id)
    asking: Any = {"model": "fake-bench-2", "conversation": conversation.id, "context_management": THRESHOLD}
    if streamed:
        events = [event async for event in await client.responses.create(input=f"{name} next", stream=True, **asking)]
        assert events[-1].type == "response.completed"
        response = events[-1].response
        kinds = [event.type for event in events]
        added = kinds.index("response.output_item.added")
        assert kinds[added : added + 3] == [
            "response.output_item.added", "response.output_item.done", "response.output_item.added",
        ]  # fmt: skip
    else:
        response = await client.responses.create(input=f"{name} next", **asking)
    assert [item.type for item in response.output] == ["compaction", "message"]
    assert response.output_text == "word1 word2"
    # user: auto X old …, user: auto X older, user: auto X first, assistant: word1 word2
    summary = f"{TOLD}{904 + 4 + 4 + 3} words"
    assert await context(upstream, f"{name} next") == [f"system: {summary}", f"user: {name} next"]
    assert response.usage is not None
    assert response.usage.output_tokens == 2 + 1
    listed = [item.type async for item in client.conversations.items.list(conversation.id, order="asc")]
    assert listed == ["message"] * 5 + ["compaction", "message"]
    for cold in (False, True):
        if cold:
            await forget_hot(redis)
        await client.responses.create(input=f"{name} {cold} later", **asking)
        assert (await context(upstream, f"{name} {cold} later"))[:3] == [
            f"system: {summary}", f"user: {name} next", "assistant: word1 word2",
        ]  # fmt: skip
    assert len(await items_of(client, conversation.id)) == 4 + 2 * 3


@pytest.mark.parametrize("by_itself", [False, True], ids=["asked for", "by itself"])
async def test_instructions_stand_as_they_were(client: AsyncOpenAI, upstream: Part, by_itself: bool) -> None:
    """A system or developer message holds on word for word, whatever the model makes of it in its summary."""
    name = f"rules {by_itself}"
    rule, late = {"role": "system", "content": f"{name} hold"}, {"role": "developer", "content": f"{name} hold too"}
    said: list[Any] = [
        rule,
        user(f"{name} old {LONG}"),
        {"role": "assistant", "content": "ok"},
        late,
        user(f"{name} new"),
    ]
    if by_itself:
        conversation = await client.conversations.create(items=said)
        first = await client.responses.create(
            model="fake-bench-2", input=f"{name} next", conversation=conversation.id, context_management=THRESHOLD
        )
        assert [item.type for item in first.output] == ["compaction", "message"]
        last: Any = {"conversation": conversation.id, "input": f"{name} last"}
    else:
        compacted = await client.responses.compact(model="fake-bench-2", input=said)
        last = {"input": [*(item.to_dict(warnings=False) for item in compacted.output), user(f"{name} last")]}
    await client.responses.create(**last)
    memory, *asked_with = await context(upstream, f"{name} last")
    assert memory.startswith(f"system: {TOLD}")
    assert asked_with[:2] == [f"system: {name} hold", f"system: {name} hold too"]
    assert LONG not in str(asked_with)


async def test_instructions_alone_are_not_compacted(client: AsyncOpenAI) -> None:
    rule: Any = {"role": "system", "content": f"alone {LONG}"}
    conversation = await client.conversations.create(items=[rule])
    response = await client.responses.create(
        model="fake-bench-1", input="alone", conversation=conversation.id, context_management=THRESHOLD
    )
    assert [item.type for item in response.output] == ["message"]


async def test_below_the_threshold_nothing_happens(client: AsyncOpenAI, upstream: Part) -> None:
    first = await client.responses.create(model="fake-bench-2", input="small one")
    second = await client.responses.create(
        input="small two", previous_response_id=first.id, context_management=THRESHOLD
    )
    assert [item.type for item in second.output] == ["message"]
    assert len(await asked(upstream, "small two")) == 1


@pytest.mark.parametrize("stored", [False, True])
async def test_one_long_turn_is_compacted_between_its_calls(client: AsyncOpenAI, upstream: Part, stored: bool) -> None:
    """An agent's turn may go on for hours: its earlier steps go, and no call is parted from its output."""
    steps: list[Any] = [user("steps of an agent")]
    for step in range(3):
        calls = [f"c{step}.{number}" for number in range(2)]
        steps += [{"type": "function_call", "call_id": call, "name": "weather", "arguments": "{}"} for call in calls]
        said = f"step {step} of {stored} " + LONG[:1000]
        steps += [{"type": "function_call_output", "call_id": call, "output": said} for call in calls]
    asking: Any = {"model": "fake-bench-2", "tools": [WEATHER], "context_management": THRESHOLD}
    if stored:
        conversation = await client.conversations.create(items=steps[:-2])
        response = await client.responses.create(input=steps[-2:], conversation=conversation.id, **asking)
    else:
        response = await client.responses.create(input=steps, store=False, **asking)
    assert [item.type for item in response.output] == ["compaction", "message"]
    messages = (await asked(upstream, f"step 2 of {stored}"))[-1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["system", "assistant", "tool", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c2.0", "c2.1"]


async def test_a_turn_with_calls_stays_whole_where_it_can(client: AsyncOpenAI, upstream: Part) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}
    items: list[Any] = [user(f"long ago {LONG}"), {"role": "assistant", "content": "ok"}, user("weather now?"), call]
    conversation = await client.conversations.create(items=items)
    output: Any = [{"type": "function_call_output", "call_id": "c", "output": "rain now"}]
    await client.responses.create(
        model="fake", input=output, tools=[WEATHER], conversation=conversation.id, context_management=THRESHOLD
    )
    messages = (await asked(upstream, "rain now"))[-1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]


async def test_a_turn_whose_summary_fails_changes_nothing(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[user(f"failing {LONG}"), user("x")])
    await client.responses.create(model="fake-bench-1", input="y", conversation=conversation.id)
    with pytest.raises(APIStatusError) as error:
        await client.responses.create(
            model="fake-500", input="z", conversation=conversation.id, context_management=THRESHOLD
        )
    assert error.value.code == "upstream_error"
    assert len(await items_of(client, conversation.id)) == 4


async def test_what_another_service_compacted_is_refused(client: AsyncOpenAI) -> None:
    """Silence would be an answer without all that it stands for."""
    for content in ("gAAAAABpM0Yj", "chatbot1.bm90aGluZw==", "chatbot1.é"):
        with pytest.raises(BadRequestError) as error:
            await client.responses.create(input=[{"type": "compaction", "encrypted_content": content}, user("x")])
        assert (error.value.code, error.value.param) == ("unsupported_content", "input")


async def test_thresholds(client: AsyncOpenAI) -> None:
    wrong: Any
    for wrong, param in (
        ([{"type": "compaction", "compact_threshold": 10}], "context_management[0].compact_threshold"),
        ([{"type": "compaction"}], "context_management[0].compact_threshold"),
        ([{"type": "forgetting", "compact_threshold": 1000}], "context_management[0].type"),
        ([], "context_management"),
    ):
        with pytest.raises(BadRequestError) as error:
            await client.responses.create(input="x", context_management=wrong)
        assert error.value.param == param
