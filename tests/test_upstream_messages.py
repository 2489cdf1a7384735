"""An Ask in Responses items becomes a chat-completions body; and events survive whatever the network does to them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.upstream.exchange import Ask, UpstreamError
from api.upstream.messages import callable_tools, chat_request
from api.upstream.sse import Decoder

Json = dict[str, Any]
PNG = "data:image/png;base64,iVBORw0KGgo="


def tool(name: str, **more: Any) -> Json:
    return {"type": "function", "name": name, "description": None, "parameters": None, "strict": None, **more}


def message(role: str, content: Any) -> Json:
    return {"id": "msg_1", "type": "message", "role": role, "status": "completed", "content": content}


def call(number: int) -> Json:
    return {"id": "fc_1", "type": "function_call", "call_id": f"call_{number}", "name": "now", "arguments": "{}"}


def output(number: int, value: Any) -> Json:
    return {"id": "fco_1", "type": "function_call_output", "call_id": f"call_{number}", "output": value}


def sent_call(number: int) -> Json:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def body(items: list[Json] | None = None, *, openai: bool = False, **more: Any) -> Json:
    return chat_request(Ask("m", items or [], **more), stream=False, openai=openai)


SAID = [{"type": "output_text", "text": "a", "annotations": []}, {"type": "output_text", "text": "b"}]
REFUSED = [{"type": "refusal", "refusal": "no"}]
REASONING = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([message("user", "hi")], [{"role": "user", "content": "hi"}]),
        ([message("user", [{"type": "input_text", "text": "hi"}])], [{"role": "user", "content": "hi"}]),
        ([message("assistant", "yes")], [{"role": "assistant", "content": "yes"}]),
        ([message("assistant", SAID)], [{"role": "assistant", "content": "ab"}]),
        ([message("assistant", REFUSED)], [{"role": "assistant", "content": "no"}]),
        ([message("developer", "be brief")], [{"role": "system", "content": "be brief"}]),
        ([REASONING, {"type": "new_thing", "value": 1}, message("user", "hi")], [{"role": "user", "content": "hi"}]),
        (
            [call(1), REASONING, call(2), output(1, "one"), output(2, "two")],
            [
                {"role": "assistant", "content": None, "tool_calls": [sent_call(1), sent_call(2)]},
                {"role": "tool", "tool_call_id": "call_1", "content": "one"},
                {"role": "tool", "tool_call_id": "call_2", "content": "two"},
            ],
        ),
        (
            [message("assistant", "let me see"), call(1), output(1, [{"type": "input_text", "text": "one"}])],
            [
                {"role": "assistant", "content": "let me see", "tool_calls": [sent_call(1)]},
                {"role": "tool", "tool_call_id": "call_1", "content": "one"},
            ],
        ),
        (
            [call(1), message("assistant", "wait"), output(1, "one"), call(2)],
            [
                {"role": "assistant", "content": "wait", "tool_calls": [sent_call(1)]},
                {"role": "tool", "tool_call_id": "call_1", "content": "one"},
                {"role": "assistant", "content": None, "tool_calls": [sent_call(2)]},
            ],
        ),
    ],
)
def test_items_become_messages(items: list[Json], messages: list[Json]) -> None:
    assert body(items)["messages"] == messages


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "input_text", "text": "t"}, {"type": "text", "text": "t"}),
        ({"type": "input_image", "image_url": PNG}, {"type": "image_url", "image_url": {"url": PNG}}),
        (
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        ),
        (
            {"type": "input_image", "image_url": PNG, "detail": "high"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "JVBE"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBE"}},
        ),
    ],
)
def test_parts_become_parts(part: Json, sent: Json) -> None:
    text = {"type": "input_text", "text": "look"}
    assert body([message("user", [text, part])])["messages"][0]["content"] == [{"type": "text", "text": "look"}, sent]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_url": "https://x/y.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_image", "file_id": "file_1", "image_url": None},
        {"type": "input_audio", "input_audio": {}},
    ],
)
def test_what_has_no_chat_form_is_refused(part: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        body([message("user", [part])])
    assert (caught.value.status, caught.value.param) == (400, "input")


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {}),
        ({"instructions": "be brief"}, {"messages": [{"role": "system", "content": "be brief"}]}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"presence_penalty": 1.0, "frequency_penalty": 0.0}, {"presence_penalty": 1.0, "frequency_penalty": 0.0}),
        ({"reasoning_effort": "low", "verbosity": "high"}, {"reasoning_effort": "low", "verbosity": "high"}),
        ({"text_format": {"type": "text"}}, {}),
        ({"text_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {
                "text_format": {
                    "type": "json_schema",
                    "name": "n",
                    "schema": {"a": 1},
                    "strict": True,
                    "description": None,
                }
            },
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True},
                }
            },
        ),
        ({"tool_choice": "required", "parallel_tool_calls": True}, {}),
    ],
)
def test_only_what_was_set_is_sent(settings: Json, sent: Json) -> None:
    assert body(**settings) == {"model": "m", "messages": [], **sent}


def test_openai_has_names_of_its_own() -> None:
    sent = body([message("developer", "x")], openai=True, max_output_tokens=9, safety_identifier="user-1")
    assert sent["messages"] == [{"role": "developer", "content": "x"}]
    assert (sent["max_completion_tokens"], sent["safety_identifier"]) == (9, "user-1")


ONE = {"type": "function", "name": "one"}


@pytest.mark.parametrize(
    ("choice", "sent_names", "sent_choice", "names"),
    [
        ("auto", ["one", "two"], None, None),
        ("required", ["one", "two"], "required", None),
        ("none", ["one", "two"], "none", set()),
        (ONE, ["one", "two"], {"type": "function", "function": {"name": "one"}}, {"one"}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [ONE]}, ["one"], None, {"one"}),
        ({"type": "allowed_tools", "mode": "required", "tools": [ONE]}, ["one"], "required", {"one"}),
        ({"type": "allowed_tools", "mode": "none", "tools": [ONE]}, ["one"], "none", set()),
    ],
)
def test_tool_choice(choice: str | Json, sent_names: list[str], sent_choice: Any, names: set[str] | None) -> None:
    question = Ask("m", [], tools=[tool("one"), tool("two")], tool_choice=choice)
    sent = chat_request(question, stream=False, openai=False)
    assert [one["function"]["name"] for one in sent["tools"]] == sent_names
    assert sent.get("tool_choice") == sent_choice
    assert callable_tools(question) == names


def test_a_tool_is_sent_whole() -> None:
    schema = {"type": "object", "properties": {}}
    sent = body(tools=[tool("one", description="d", parameters=schema, strict=True)], parallel_tool_calls=False)
    function = {"name": "one", "description": "d", "parameters": schema, "strict": True}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["parallel_tool_calls"] is False


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from([2, 3]),
    st.integers(1, 9),
)
def test_events_are_the_same_wherever_the_network_cuts(
    texts: list[str], line_end: bytes, line_ends: int, size: int
) -> None:
    stream = b"".join(b": comment" + line_end * 2 + b"data:" + text.encode() + line_end * line_ends for text in texts)
    decoder, found = Decoder(), []
    for start in range(0, len(stream), size):
        found += decoder.feed(stream[start : start + size])
    last = decoder.end()
    assert [payload.decode() for payload in [*found, *([last] if last else [])]] == texts


def test_data_in_several_lines_is_one_payload() -> None:
    assert Decoder().feed(b'event: x\ndata: {"a":\ndata: 1}\nid: 7\n\ndata: 2\ndata: 3\n\n') == [
        b' {"a":\n 1}',
        b" 2\n 3",
    ]
