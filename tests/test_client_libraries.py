"""Two libraries that people build agents with, used as their documentation shows: OpenAI's Agents SDK and Pydantic AI.

The first sends traces to OpenAI unless it is told not to; here it is, before anything runs.
"""

from collections.abc import AsyncIterator
from typing import Any

import agents
import pydantic_ai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    OpenAIResponsesWSModel,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModelSettings
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.fake_upstream import TOKENS
from tests.running import Service
from tests.talking import talk

pytestmark = pytest.mark.anyio

agents.set_tracing_disabled(disabled=True)

WORDS = " ".join(f"word{number}" for number in range(1, TOKENS + 1))
MODELS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}
PYDANTIC_MODELS: dict[str, Any] = {"responses": PydanticResponsesModel, "chat": OpenAIChatModel}


class City(BaseModel):
    city: str


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    """Checks every answer on its way to the library."""
    async with talk(asking_service) as one:
        yield one


@pytest.fixture
async def echo(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(service) as one:
        yield one


@pytest.fixture
def asked() -> list[str]:
    """The cities whose weather was asked for."""
    return []


@pytest.fixture
def weather(asked: list[str]) -> Any:
    @function_tool
    def get_weather(city: str) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return f"The weather in {city} is sunny"

    return get_weather


@pytest.mark.parametrize("kind", MODELS)
async def test_an_agent_calls_its_function(client: AsyncOpenAI, weather: Any, asked: list[str], kind: str) -> None:
    model = MODELS[kind]("fake-tool", client)
    agent = Agent(name="Weather", instructions="Be brief.", model=model, tools=[weather])
    result = await Runner.run(agent, "What's the weather in Oslo?")
    assert (result.final_output, asked) == (WORDS, ["Oslo"])


@pytest.mark.parametrize("kind", MODELS)
async def test_an_agent_streams(client: AsyncOpenAI, weather: Any, asked: list[str], kind: str) -> None:
    agent = Agent(name="Weather", model=MODELS[kind]("fake-tool", client), tools=[weather])
    result = Runner.run_streamed(agent, "What's the weather in Oslo?")
    pieces, happened = [], []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            pieces.append(event.data.delta)
        elif event.type == "run_item_stream_event":
            happened.append(event.name)
    assert "".join(pieces) == result.final_output == WORDS
    assert happened == ["tool_called", "tool_output", "message_output_created"]
    assert asked == ["Oslo"]


async def test_an_agent_over_a_websocket(client: AsyncOpenAI, weather: Any, asked: list[str]) -> None:
    model = OpenAIResponsesWSModel("fake-tool", client)
    agent = Agent(name="Weather", model=model, tools=[weather])
    result = await Runner.run(agent, "What's the weather in Oslo?", auto_previous_response_id=True)
    assert (result.final_output, asked) == (WORDS, ["Oslo"])
    await model.close()


async def test_agents_hand_over(client: AsyncOpenAI) -> None:
    expert = Agent(name="Expert", model=OpenAIResponsesModel("fake", client))
    triage = Agent(name="Triage", model=OpenAIResponsesModel("fake-tool", client), handoffs=[expert])
    result = await Runner.run(triage, "Help me")
    assert (result.last_agent.name, result.final_output) == ("Expert", WORDS)


async def test_an_agent_answers_in_a_type(echo: AsyncOpenAI) -> None:
    agent = Agent(name="Reader", model=OpenAIResponsesModel("echo", echo), output_type=City)
    result = await Runner.run(agent, '{"city": "Oslo"}')
    assert result.final_output == City(city="Oslo")


async def test_a_session_is_a_conversation(client: AsyncOpenAI) -> None:
    agent = Agent(name="Historian", model=OpenAIResponsesModel("fake-history", client))
    session = OpenAIConversationsSession(openai_client=client)
    first = await Runner.run(agent, "one", session=session)
    second = await Runner.run(agent, "two", session=session)
    assert first.final_output == "user: one"
    assert second.final_output == "user: one\nassistant: user: one\nuser: two"
    assert len(await session.get_items()) == 4
    await session.pop_item()
    assert len(await session.get_items()) == 3
    await session.clear_session()


@pytest.mark.parametrize("way", ["conversation", "previous response"])
async def test_the_service_keeps_the_history(client: AsyncOpenAI, weather: Any, asked: list[str], way: str) -> None:
    """The library sends only what is new, also between a function's call and its output."""
    agent = Agent(
        name="Weather",
        model=OpenAIResponsesModel("fake-tool", client),
        tools=[weather],
        model_settings=ModelSettings(store=True),
    )
    kept: Any = (
        {"conversation_id": (await client.conversations.create()).id}
        if way == "conversation"
        else {"auto_previous_response_id": True}
    )
    first = await Runner.run(agent, "What's the weather?", **kept)
    assert (first.final_output, asked) == (WORDS, ["Oslo"])
    historian = Agent(name="Historian", model=OpenAIResponsesModel("fake-history", client))
    kept = kept if way == "conversation" else {"previous_response_id": first.last_response_id}
    second = await Runner.run(historian, "And now?", **kept)
    assert second.final_output.splitlines()[-1] == "user: And now?"
    assert "The weather in Oslo is sunny" in second.final_output
    assert "call get_weather" in second.final_output


@pytest.mark.parametrize("kind", PYDANTIC_MODELS)
async def test_a_pydantic_agent_calls_its_function(client: AsyncOpenAI, asked: list[str], kind: str) -> None:
    agent = pydantic_ai.Agent(pydantic_model(client, kind, "fake-tool"), instructions="Be brief.")

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return "sunny"

    result = await agent.run("What's the weather in Oslo?")
    assert (result.output, asked) == (WORDS, ["Oslo"])
    assert result.usage.output_tokens > 0


@pytest.mark.parametrize("kind", PYDANTIC_MODELS)
async def test_a_pydantic_agent_streams(client: AsyncOpenAI, kind: str) -> None:
    agent = pydantic_ai.Agent(pydantic_model(client, kind, "fake"))
    async with agent.run_stream("hello") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == WORDS


@pytest.mark.parametrize("kind", PYDANTIC_MODELS)
async def test_a_pydantic_agent_answers_in_a_type(client: AsyncOpenAI, echo: AsyncOpenAI, kind: str) -> None:
    """Once as a function's arguments, once as the schema of the text."""
    called = pydantic_ai.Agent(pydantic_model(client, kind, "fake-tool"), output_type=City)
    assert (await called.run("Where?")).output == City(city="Oslo")
    written = pydantic_ai.Agent(pydantic_model(echo, kind, "echo"), output_type=pydantic_ai.NativeOutput(City))
    assert (await written.run('{"city": "Oslo"}')).output == City(city="Oslo")


@pytest.mark.parametrize("kind", PYDANTIC_MODELS)
async def test_a_pydantic_agent_brings_its_history(client: AsyncOpenAI, kind: str) -> None:
    agent = pydantic_ai.Agent(pydantic_model(client, kind, "fake-history"))
    first = await agent.run("one")
    second = await agent.run("two", message_history=first.new_messages())
    assert second.output == "user: one\nassistant: user: one\nuser: two"


async def test_a_pydantic_agent_talks_in_a_conversation(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    settings = OpenAIResponsesModelSettings(openai_conversation_id=conversation.id)
    agent = pydantic_ai.Agent(pydantic_model(client, "responses", "fake-history"), model_settings=settings)
    await agent.run("one")
    assert (await agent.run("two")).output == "user: one\nassistant: user: one\nuser: two"


def pydantic_model(client: AsyncOpenAI, kind: str, name: str) -> Any:
    return PYDANTIC_MODELS[kind](name, provider=OpenAIProvider(openai_client=client))
