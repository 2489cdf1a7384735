"""What Responses servers send, and what an answer of ours makes of it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from api.upstream.exchange import (
    Annotation,
    Ask,
    Count,
    Delta,
    Finish,
    ItemEnd,
    Logprobs,
    Reasoning,
    Refusal,
    Summary,
    Text,
    UpstreamError,
    Usage,
)
from api.upstream.routing import Routing
from api.upstream.settings import ProviderSettings, Timeouts, only_upstream
from local.children import HOST
from tests.fake_responses import CITED
from tests.running import Part
from tests.talking import asked
from tests.test_upstream import KEY, WEATHER, ask, calls, collect, streamed, told

pytestmark = pytest.mark.anyio
COUNTED = Usage(10, 2, cached_tokens=2, reasoning_tokens=1, cache_write_tokens=3)
STOP, CALLS = Finish("stop"), Finish("tool_calls")


def routing(upstream: Part, timeouts: Timeouts | None = None, retries: int = 2) -> Routing:
    url = f"http://{HOST}:{upstream.port}/v1"
    return Routing(only_upstream(ProviderSettings("responses", url, KEY, timeouts or Timeouts(), retries)))


@pytest.fixture
async def native(upstream: Part) -> AsyncIterator[Routing]:
    one = routing(upstream)
    yield one
    await one.close()


async def answered(native: Routing, question: Ask, way: str) -> list[Delta]:
    return await streamed(native, question) if way == "stream" else await native.complete(question)


@pytest.mark.parametrize("way", ["whole", "stream"])
async def test_log_probabilities(native: Routing, upstream: Part, way: str) -> None:
    question = replace(ask("fake-likely", f"likely {way}"), top_logprobs=3)
    told = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    assert (await answered(native, question, way))[:2] == [Logprobs([told]), Text("Hi")]
    body = (await asked(upstream, f"likely {way}"))[-1]["body"]
    assert (body["include"], body["top_logprobs"]) == (["message.output_text.logprobs"], 3)


@pytest.mark.parametrize(
    ("model", "usage", "finish"),
    [
        *((name, COUNTED, STOP) for name in (
            "plain", "no-done", "no-last-line", "crlf", "no-space", "no-event-lines", "comments", "other-ids",
            "other-ids-no-end", "no-deltas", "only-end", "json", "reasoning", "sealed", "thinking", "cited",
        )),
        ("no-index", COUNTED, CALLS),
        ("tools-at-the-end", COUNTED, CALLS),
        ("no-usage", Usage(1, 3, estimated=True), STOP),
        ("length", COUNTED, Finish("length")),
        ("filter", COUNTED, Finish("content_filter")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["stream", "complete"])
async def test_every_server_says_hello_world(
    native: Routing, model: str, usage: Usage, finish: Finish, way: str
) -> None:
    deltas = await answered(native, ask(f"fake-{model}"), way)
    assert told(deltas) == "Hello world"
    assert deltas[-2:] == [usage, finish]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("tools", [("call_a", "weather", '{"city":"Oslo"}'), ("call_b", "now", "{}")]),
        ("tools-at-once", [("call_a", "weather", '{"city":"Oslo"}'), (None, "now", "{}")]),
        ("tools-at-the-end", [("call_a", "weather", '{"city":"Oslo"}')]),
        ("no-index", [("call_a", "weather", '{"city":"Oslo"}')]),
    ],
)
async def test_function_calls_are_put_together(
    native: Routing, model: str, expected: list[tuple[str | None, str, str]]
) -> None:
    deltas = await streamed(native, ask(f"fake-{model}"))
    found = calls(deltas)
    assert list(found) == list(range(len(expected)))
    assert [(want[0] and one[0], *one[1:]) for one, want in zip(found.values(), expected, strict=True)] == expected
    assert deltas[-1] == CALLS


@pytest.mark.parametrize("way", ["stream", "complete"])
async def test_what_chat_completions_have_no_word_for(native: Routing, way: str) -> None:
    deltas = await answered(native, ask("fake-reasoning"), way)
    thought = [delta for delta in deltas if isinstance(delta, Summary | ItemEnd)]
    summaries = [delta for delta in thought if isinstance(delta, Summary)]
    assert "".join(one.text for one in summaries if one.number == 0) == "First."
    assert "".join(one.text for one in summaries if one.number == 1) == "Then."
    assert [delta for delta in thought if isinstance(delta, ItemEnd)] == [ItemEnd("sealed"), ItemEnd(None)]
    assert (await answered(native, ask("fake-sealed"), way))[0] == ItemEnd("sealed")
    cited = await answered(native, ask("fake-cited"), way)
    assert [delta for delta in cited if isinstance(delta, Annotation)] == [
        Annotation({"type": "url_citation", **CITED})
    ]
    two = await answered(native, ask("fake-two-messages"), way)
    assert [delta for delta in two if not isinstance(delta, Usage | Finish)] == [
        Text("Hello"), ItemEnd(None), Text("world"), ItemEnd(None),
    ]  # fmt: skip


async def test_refusals_thoughts_and_characters_in_pieces(native: Routing) -> None:
    assert told(await streamed(native, ask("fake-refusal")), Refusal) == "I won't"
    assert told(await streamed(native, ask("fake-thinking")), Reasoning) == "Let me think"
    assert told(await streamed(native, ask("fake-bytewise"))) == "Grüße 🌍"
    assert told(await streamed(native, ask("fake-nul"))) == "a\ufffdb"


@pytest.mark.parametrize(
    ("model", "text", "status", "code"),
    [
        ("failed", "Hello world", 502, "upstream_error"),
        ("failed-first", "", 400, "upstream_rejected"),
        ("failed-rate", "", 429, "rate_limit_exceeded"),
        ("failed-context", "", 400, "context_length_exceeded"),
        ("failed-json", "", 502, "upstream_error"),
        ("error-event", "Hello world", 502, "upstream_error"),
        ("error-nested", "Hello world", 502, "upstream_error"),
        ("cancelled", "Hello world", 502, "upstream_cut"),
        ("no-end", "Hello world", 502, "upstream_cut"),
        ("only-done", "Hello world", 502, "upstream_cut"),
        ("half-event", "Hello world", 502, "upstream_cut"),
        ("broken-json", "Hello world", 502, "upstream_error"),
        ("odd-shape", "Hello world", 502, "upstream_error"),
        ("lost-call", "Hello world", 502, "upstream_error"),
        ("html", "", 502, "upstream_error"),
        ("cut", "word1 word2 word3 ", 502, "upstream_cut"),
        ("reset", "word1 word2 word3 ", 502, "upstream_cut"),
        ("hang-middle", "word1 word2 word3 ", 504, "upstream_timeout"),
        ("hang-headers", "", 504, "upstream_timeout"),
        ("drop", "", 502, "upstream_error"),
        ("400", "", 400, "upstream_rejected"),
        ("429", "", 429, "rate_limit_exceeded"),
        ("500", "", 502, "upstream_error"),
        ("context", "", 400, "context_length_exceeded"),
        ("echo-key", "", 400, "upstream_rejected"),
    ],
)
async def test_a_failure_is_told_after_the_text_before_it(
    upstream: Part, model: str, text: str, status: int, code: str
) -> None:
    quick = routing(upstream, Timeouts(connect=1, first_token=0.3, between_tokens=0.2), retries=0)
    deltas: list[Delta] = []
    with pytest.raises(UpstreamError) as caught:
        await collect(quick, ask(f"fake-{model}"), deltas)
    await quick.close()
    error = caught.value
    assert (told(deltas), error.status, error.code) == (text, status, code)
    for secret in (KEY, "<", "proxy-7", "CUDA"):
        assert secret not in error.message


@pytest.mark.parametrize("way", ["stream", "complete"])
async def test_what_may_pass_is_tried_again(upstream: Part, native: Routing, way: str) -> None:
    deltas = await answered(native, ask("fake-503-then-ok-2", f"native {way}"), way)
    assert told(deltas).endswith("word32")
    assert len(await asked(upstream, f"native {way}")) == 3


async def test_what_is_sent(upstream: Part, native: Routing) -> None:
    """Nothing stays with the server; ids of ours and thoughts that it can't open are not for it."""
    said: dict[str, Any] = {"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}
    items: list[dict[str, Any]] = [
        {"id": "msg_1", "type": "message", "status": "completed", "role": "user",
         "content": [{"type": "input_text", "text": "sent natively"},
                     {"type": "input_image", "image_url": "http://x/y.png", "detail": "auto"},
                     {"type": "input_file", "file_url": "http://x/y.pdf"}]},
        {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"id": "rs_2", "type": "reasoning", "summary": [], "content": [], "encrypted_content": "sealed"},
        {"id": "msg_2", "type": "message", "status": "completed", "role": "assistant", "content": [said]},
        {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"},
        {"id": "fco_1", "type": "function_call_output", "status": "completed", "call_id": "c", "output": "42"},
        {"id": "msg_3", "type": "message", "status": "completed", "role": "assistant",
         "content": [{"type": "refusal", "refusal": "no"}]},
    ]  # fmt: skip
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    await native.complete(
        Ask(
            "fake", items, "be brief", [WEATHER, {**WEATHER, "name": "time"}],
            tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]},
            parallel_tool_calls=False, max_output_tokens=99, temperature=0, top_p=0.5, text_format=form,
            verbosity="low", reasoning_effort="high", reasoning_summary="auto", safety_identifier="s",
            prompt_cache_key="k",
        )
    )  # fmt: skip
    [request] = await asked(upstream, "sent natively")
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    assert request["body"] == {
        "model": "fake", "store": False, "instructions": "be brief", "parallel_tool_calls": False,
        "max_output_tokens": 99, "temperature": 0, "top_p": 0.5, "text": {"format": form, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "safety_identifier": "s", "prompt_cache_key": "k",
        "tools": [{**WEATHER, "name": "time"}], "tool_choice": "required",
        "input": [
            {"type": "message", "role": "user", "content": items[0]["content"]},
            {"type": "reasoning", "summary": [], "encrypted_content": "sealed"},
            {"type": "message", "role": "assistant", "content": "hello"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ],
    }  # fmt: skip
    await streamed(native, ask("fake", "sent bare"))
    [bare] = await asked(upstream, "sent bare")
    assert bare["body"].keys() == {"model", "store", "stream", "input"}


async def test_a_parameter_of_chat_completions_is_refused(native: Routing) -> None:
    with pytest.raises(UpstreamError, match="does not know: seed, stop") as caught:
        await native.complete(ask("fake", further={"stop": ["x"], "seed": 1}))
    assert (caught.value.status, caught.value.param) == (400, "seed")


@pytest.mark.parametrize("way", ["stream", "complete"])
async def test_thoughts_that_another_provider_sealed_are_left_out(native: Routing, way: str) -> None:
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "of another"}
    question = Ask("fake-foreign", [sealed, {"type": "message", "role": "user", "content": "go on"}])
    assert told(await answered(native, question, way)) == "user: go on"


async def test_the_provider_counts(native: Routing) -> None:
    """An image too, for it is counted as it would be asked."""
    image = {"type": "input_image", "image_url": "http://x/y.png"}
    content = [{"type": "input_text", "text": "three short words"}, image]
    assert await native.count(Ask("fake", [{"type": "message", "role": "user", "content": content}])) == Count(
        4, estimated=False
    )
