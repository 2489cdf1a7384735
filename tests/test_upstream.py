"""What real chat-completions servers send, and what an answer of ours makes of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api.upstream.exchange import (
    Ask,
    Delta,
    Finish,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    UpstreamError,
    Usage,
)
from api.upstream.routing import Routing
from api.upstream.settings import ProviderSettings, Timeouts, only_upstream
from local.children import HOST, free_port
from tests.fake_upstream import fake_upstream_in
from tests.running import Part
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio
KEY = "sk-secret-key"
ECHO = ProviderSettings("echo")
COUNTED = Usage(10, 2, cached_tokens=2, reasoning_tokens=1, cache_write_tokens=3)
STOP, CALLS = Finish("stop"), Finish("tool_calls")
WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}


@pytest.fixture(scope="module")
async def fake(folder: Path) -> AsyncIterator[Part]:
    server = fake_upstream_in(folder / "fake")
    await server.start()
    yield server
    await server.close()


@contextlib.asynccontextmanager
async def made(port: int, timeouts: Timeouts | None = None, retries: int = 2) -> AsyncIterator[Routing]:
    url = f"http://{HOST}:{port}/v1"
    upstream = Routing(only_upstream(ProviderSettings("chat_completions", url, KEY, timeouts or Timeouts(), retries)))
    yield upstream
    await upstream.close()


@pytest.fixture
async def upstream(fake: Part) -> AsyncIterator[Routing]:
    async with made(fake.port) as one:
        yield one


def ask(model: str, text: str = "hi", **more: Any) -> Ask:
    return Ask(model, [{"type": "message", "role": "user", "content": text}], **more)


async def streamed(upstream: Routing, question: Ask) -> list[Delta]:
    """Everything that came, checked for what every stream promises."""
    pieces = [deltas async for deltas in upstream.stream(question)]
    assert all(pieces)
    deltas = [delta for piece in pieces for delta in piece]
    assert [type(delta) for delta in deltas[-2:]] == [Usage, Finish]
    assert not any(isinstance(delta, Usage | Finish) for delta in deltas[:-2])
    return deltas


async def collect(upstream: Routing, question: Ask, deltas: list[Delta]) -> None:
    async for piece in upstream.stream(question):
        deltas += piece


def told(deltas: list[Delta], kind: type[Text] | type[Reasoning] | type[Refusal] = Text) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


def calls(deltas: list[Delta]) -> dict[int, tuple[str, str, str]]:
    found: dict[int, tuple[str, str, str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCall):
            call_id, name, arguments = found.get(delta.number, (delta.call_id, delta.name, ""))
            assert call_id
            assert name
            assert (call_id, name) == (delta.call_id, delta.name)
            found[delta.number] = call_id, name, arguments + delta.arguments
    return found


async def seen(fake: Part, text: str) -> list[dict[str, Any]]:
    """The requests whose last message was this text."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{fake.host}:{fake.port}/requests") as response:
        return [one for one in await response.json() if one["body"]["messages"][-1]["content"] == text]


@pytest.mark.parametrize(
    ("model", "reasoning", "usage", "finish"),
    [
        ("azure", "", None, STOP),
        ("vllm", "Let me think", COUNTED, STOP),
        ("reasoning", "Let me think", None, STOP),
        ("openrouter", "", None, STOP),
        ("ollama", "", None, Finish("length")),
        ("usage-null", "", COUNTED, STOP),
        ("usage-text", "", Usage(0, 0), STOP),
        ("no-usage", "", None, STOP),
        ("no-space", "", None, STOP),
        ("crlf", "", None, STOP),
        ("three-lf", "", None, STOP),
        ("event-lines", "", None, STOP),
        ("no-done", "", None, STOP),
        ("no-last-line", "", None, STOP),
        ("done-without-finish", "", None, STOP),
        ("after-done", "", None, STOP),
        ("parts", "Let me think", None, STOP),
        ("content-null", "", None, STOP),
        ("length", "", None, Finish("length")),
        ("filter", "", None, Finish("content_filter")),
        ("json", "", COUNTED, STOP),
        ("json-blank", "", COUNTED, STOP),
        ("json-no-finish", "", None, STOP),
        ("sse", "", COUNTED, STOP),
        ("sse-as-text", "", None, STOP),
    ],
)
@pytest.mark.parametrize("way", ["stream", "complete"])
async def test_every_dialect_says_hello_world(
    upstream: Routing, model: str, way: str, reasoning: str, usage: Usage | None, finish: Finish
) -> None:
    question = ask(f"fake-{model}")
    deltas = await streamed(upstream, question) if way == "stream" else await upstream.complete(question)
    assert told(deltas) == "Hello world"
    assert told(deltas, Reasoning) == reasoning
    assert deltas[-2] == usage or (
        usage is None and deltas[-2] == Usage(1, -(-len(reasoning + "Hello world") // 4), estimated=True)
    )
    assert deltas[-1] == finish


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("tool-pieces", [("call_a", "weather", '{"city":"Oslo"}'), ("call_b", "time", "{}")]),
        ("tool-no-index", [(None, "weather", '{"city":"Oslo"}'), (None, "time", '{"zone":"CET"}')]),
        ("tool-by-id", [("a", "weather", "{}"), ("b", "time", "{}")]),
        ("tool-index-0", [("a", "weather", "{}"), ("b", "time", "{}")]),
        ("tool-random-ids", [("x1", "weather", "{}")]),
        ("tool-no-arguments", [("a", "now", "{}")]),
        ("tool-late-name", [("a", "now", "{}")]),
    ],
)
async def test_function_calls_are_put_together(
    upstream: Routing, model: str, expected: list[tuple[str | None, str, str]]
) -> None:
    deltas = await streamed(upstream, ask(f"fake-{model}"))
    found = calls(deltas)
    assert list(found) == list(range(len(expected)))
    assert [(want[0] and call[0], *call[1:]) for call, want in zip(found.values(), expected, strict=True)] == expected
    assert len({call[0] for call in found.values()}) == len(found)
    assert deltas[-1] == CALLS


@pytest.mark.parametrize("way", ["stream", "complete"])
async def test_a_tool_is_called_and_its_result_answered(upstream: Routing, way: str) -> None:
    question = ask("fake-tool", tools=[WEATHER])
    deltas = await streamed(upstream, question) if way == "stream" else await upstream.complete(question)
    assert calls(deltas) == {0: ("call_fake", "weather", '{"city": "Oslo"}')}
    assert deltas[-1] == CALLS


async def test_a_refusal_and_a_character_in_pieces(upstream: Routing) -> None:
    assert told(await streamed(upstream, ask("fake-refusal")), Refusal) == "I won't"
    assert told(await streamed(upstream, ask("fake-bytewise"))) == "Grüße 🌍"


@pytest.mark.parametrize(
    ("model", "text", "status", "code"),
    [
        ("openrouter-error", "Hello world", 502, "upstream_error"),
        ("openrouter-error-first", "", 400, "upstream_rejected"),
        ("finish-error", "Hello world", 502, "upstream_error"),
        ("vllm-error", "Hello world", 502, "upstream_error"),
        ("vllm-error-first", "", 400, "context_length_exceeded"),
        ("json-error", "", 502, "upstream_error"),
        ("html", "", 502, "upstream_error"),
        ("broken-json", "Hello world", 502, "upstream_error"),
        ("odd-shape", "Hello world", 502, "upstream_error"),
        ("empty", "", 502, "upstream_error"),
        ("cut", "word1 word2 word3 ", 502, "upstream_cut"),
        ("reset", "word1 word2 word3 ", 502, "upstream_cut"),
        ("hang-middle", "word1 word2 word3 ", 504, "upstream_timeout"),
        ("hang", "", 504, "upstream_timeout"),
        ("hang-headers", "", 504, "upstream_timeout"),
        ("drop", "", 502, "upstream_error"),
        ("400", "", 400, "upstream_rejected"),
        ("401", "", 502, "upstream_auth"),
        ("403", "", 502, "upstream_auth"),
        ("404", "", 400, "upstream_rejected"),
        ("413", "", 400, "upstream_rejected"),
        ("429", "", 429, "rate_limit_exceeded"),
        ("500", "", 502, "upstream_error"),
        ("504", "", 504, "upstream_timeout"),
        ("redirect", "", 502, "upstream_error"),
        ("context", "", 400, "context_length_exceeded"),
        ("context-vllm", "", 400, "context_length_exceeded"),
        ("context-llama", "", 400, "context_length_exceeded"),
        ("llama-context", "", 400, "context_length_exceeded"),
        ("detail", "", 400, "upstream_rejected"),
        ("html-in-json", "", 400, "upstream_rejected"),
        ("long-message", "", 400, "upstream_rejected"),
        ("echo-key", "", 400, "upstream_rejected"),
        ("html-404", "", 400, "upstream_rejected"),
        ("html-502", "", 502, "upstream_error"),
    ],
)
async def test_a_failure_is_told_after_the_text_before_it(
    fake: Part, model: str, text: str, status: int, code: str
) -> None:
    quick = Timeouts(connect=1, first_token=0.3, between_tokens=0.2)
    deltas: list[Delta] = []
    async with made(fake.port, quick, retries=0) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await collect(upstream, ask(f"fake-{model}"), deltas)
    error = caught.value
    assert (told(deltas), error.status, error.code) == (text, status, code)
    assert len(error.message) <= 300
    for secret in (KEY, "<", "proxy-7", "CUDA"):
        assert secret not in error.message


@pytest.mark.parametrize(
    ("model", "words"), [("400", "fake error 400"), ("detail", "Field required"), ("redirect", "HTTP 307")]
)
async def test_the_providers_words_reach_the_client(upstream: Routing, model: str, words: str) -> None:
    with pytest.raises(UpstreamError, match=words):
        await upstream.complete(ask(f"fake-{model}"))


@pytest.mark.parametrize("way", ["stream", "complete"])
@pytest.mark.parametrize(
    ("model", "attempts", "works"),
    [
        ("fake-429-then-ok", 2, True),
        ("fake-503-then-ok-2", 3, True),
        ("fake-500-then-ok-3", 3, False),
        ("fake-drop", 3, False),
        ("fake-400", 1, False),
        ("fake-401", 1, False),
        ("fake-quota", 1, False),
        ("fake-429-later", 1, False),
    ],
)
async def test_what_may_pass_is_tried_again(
    fake: Part, upstream: Routing, model: str, attempts: int, works: bool, way: str
) -> None:
    question = ask(model, f"{model} {way}")
    with contextlib.nullcontext() if works else pytest.raises(UpstreamError):
        deltas = await streamed(upstream, question) if way == "stream" else await upstream.complete(question)
        assert told(deltas).endswith("word32")
    assert len(await seen(fake, f"{model} {way}")) == attempts


async def test_nothing_is_tried_again_after_the_first_token(fake: Part, upstream: Routing) -> None:
    with pytest.raises(UpstreamError):
        await streamed(upstream, ask("fake-reset", "once only"))
    assert len(await seen(fake, "once only")) == 1


async def test_the_providers_wish_to_wait_is_passed_on(upstream: Routing) -> None:
    with pytest.raises(UpstreamError) as caught:
        await upstream.complete(ask("fake-429-later"))
    assert caught.value.retry_after_seconds == 77


async def test_after_the_finish_reason_nothing_is_missing(fake: Part) -> None:
    async with made(fake.port, Timeouts(between_tokens=0.2)) as upstream:
        assert (await streamed(upstream, ask("fake-hang-end")))[-1] == STOP


async def test_each_wait_has_its_own_time(fake: Part) -> None:
    async with made(fake.port, Timeouts(first_token=60, between_tokens=0.2)) as upstream, asyncio.timeout(10):
        with pytest.raises(UpstreamError, match="between two tokens"):
            await streamed(upstream, ask("fake-hang-middle"))


async def test_connections_are_kept_alive(fake: Part, upstream: Routing) -> None:
    for _ in range(5):
        await streamed(upstream, ask("fake-late-end", "one connection"))
        await upstream.complete(ask("fake", "one connection"))
    assert len({one["port"] for one in await seen(fake, "one connection")}) == 1


async def test_comments_do_not_make_a_client_wait_for_ever(fake: Part) -> None:
    """Each comment keeps the socket busy, and none is a token."""
    quick = Timeouts(first_token=0.2, between_tokens=0.2)
    async with made(fake.port, quick, retries=0) as upstream:
        with pytest.raises(UpstreamError, match="before the first token"):
            await streamed(upstream, ask("fake-comments"))


async def test_the_whole_answer_has_an_end(fake: Part) -> None:
    async with made(fake.port, Timeouts(whole=0.3), retries=0) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await streamed(upstream, ask("fake-slow-50ms"))
        assert caught.value.code == "upstream_timeout"
        with pytest.raises(UpstreamError) as caught:
            await upstream.complete(ask("fake-hang"))
        assert caught.value.code == "upstream_timeout"


async def test_a_slow_reader_is_not_a_slow_provider(fake: Part) -> None:
    """The time between tokens counts while we wait for the provider, not while our client is slow."""
    async with made(fake.port, Timeouts(between_tokens=0.3)) as upstream:
        stream = upstream.stream(ask("fake-hold-slow-reader"))
        text = told(await anext(stream))
        # The reader is busy with another stream for longer than a wait between two tokens may last.
        await streamed(upstream, ask("fake-slow-20ms"))
        async with aiohttp.ClientSession() as session:
            await session.post(f"http://{fake.host}:{fake.port}/release/slow-reader")
        async for deltas in stream:
            text += told(deltas)
    assert text.endswith("word32")


async def test_who_leaves_ends_the_providers_work(fake: Part, upstream: Routing) -> None:
    async with contextlib.aclosing(upstream.stream(ask("fake-hang-middle", "leaving"))) as stream:
        await anext(stream)

    async def dropped() -> bool:
        return any(one["dropped"] for one in await seen(fake, "leaving"))

    await wait_until(dropped, "the provider to see that we left")


async def test_nobody_listens() -> None:
    async with made(free_port(), retries=1) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.complete(ask("fake"))
    assert (caught.value.status, caught.value.code) == (502, "upstream_error")


async def test_what_is_sent(fake: Part, upstream: Routing) -> None:
    await upstream.complete(ask("fake", "sent whole"))
    await streamed(upstream, ask("fake", "sent streamed", max_output_tokens=9, temperature=0))
    whole, stream = (await seen(fake, "sent whole"))[0], (await seen(fake, "sent streamed"))[0]
    assert whole["body"] == {"model": "fake", "messages": [{"role": "user", "content": "sent whole"}]}
    assert stream["body"].items() >= {"stream": True, "stream_options": {"include_usage": True}}.items()
    assert stream["body"].items() >= {"max_tokens": 9, "temperature": 0}.items()
    assert whole["headers"]["authorization"] == f"Bearer {KEY}"


async def test_a_large_question(upstream: Routing) -> None:
    deltas = await upstream.complete(ask("fake", "x" * 3_000_000))
    assert told(deltas).endswith("word32")


async def test_models(upstream: Routing) -> None:
    assert await upstream.models() == {"fake": "upstream", "fake-tool": "upstream"}


@pytest.mark.parametrize("text", ["one  two\nthree ", "", " ", "word"])
async def test_echo(text: str) -> None:
    echo = Routing(only_upstream(ECHO))
    deltas = await streamed(echo, ask("echo", text))
    assert told(deltas) == told(await echo.complete(ask("echo", text))) == text
    assert deltas[-2] == Usage(-(-len(text) // 4), -(-len(text) // 4), estimated=True)
    assert await echo.models() == {"echo": "upstream"}


async def test_echo_comes_word_by_word() -> None:
    echo = Routing(only_upstream(ECHO))
    assert [told(deltas) for deltas in [piece async for piece in echo.stream(ask("echo", "a b c"))]] == [
        "a",
        " b",
        " c",
        "",
    ]
