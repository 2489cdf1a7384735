"""What the edge accepts and refuses, body by body: `param`, code and the stored form of items."""

import time
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from api.errors import ApiError
from api.schemas.conversations import CreateConversation, CreateItems, UpdateConversation
from api.schemas.edge import parse, parse_list_query
from api.schemas.responses import CreateResponse
from tests.contract import validate_item

IMAGE = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
HELLO = {"role": "user", "content": "hello"}


def refusal(model: type[BaseModel], raw: bytes) -> tuple[str, str | None, str]:
    with pytest.raises(ApiError) as caught:
        parse(model, raw)
    assert caught.value.status == 400
    return caught.value.code, caught.value.param, caught.value.message


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "EOF"),
        (b'{"input": "x",}', "trailing comma"),
        (b"{'input': 'x'}", "line 1 column 2"),
        (b'{"input": "x"} {}', "trailing"),
        (b'{"input": "\xff"}', "unicode"),
        (b'{"input": "a\nb"}', "control character"),
        (b'\xef\xbb\xbf{"input": "x"}', "byte order mark"),
        ('{"input": "x"}'.encode("utf-16"), "byte order mark"),
        (b'{"input": [{"type": "x", "y": ' + b"[" * 100_000, "recursion"),
    ],
)
def test_malformed_json_is_told_with_its_place(raw: bytes, told: str) -> None:
    code, param, message = refusal(CreateResponse, raw)
    assert (code, param) == ("invalid_json", None)
    assert told in message


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (rb'{"input": "a\u0000b"}', "input"),
        (rb'{"input": [{"role": "user", "content": [{"type": "input_text", "text": "\u0000"}]}]}',
         "input[0].content[0].text"),
        (rb'{"input": "x", "metadata": {"a": "\u0000"}}', "metadata.a"),
        (rb'{"input": "x", "metadata": {"\u0000": "a"}}', "metadata"),
        (rb'{"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"a": {"\u0000": 1}}}]}',
         "tools[0].parameters.a"),
        (rb'{"input": [{"type": "x", "deep": [[1, {"y": "\u0000"}]]}]}', "input[0].deep[0][1].y"),
        (rb'{"input": "\ud83d"}', "input"),
        (rb'{"input": "\uDE00 alone"}', "input"),
        (rb'{"input": "\ud83d\ud83d\ude00"}', "input"),
        (rb'{"input": "\\\ud83d"}', "input"),
        (rb'{"input": "\ud83d\n"}', "input"),
        (rb'{"input": "x", "metadata": {"a": "\udfff"}}', "metadata.a"),
        (rb'{"input": "x", "metadata": {"\ud800": "a"}}', "metadata"),
    ],
)  # fmt: skip
def test_text_that_no_store_can_keep_is_refused_with_its_place(raw: bytes, param: str) -> None:
    assert refusal(CreateResponse, raw)[:2] == ("invalid_value", param)


@pytest.mark.parametrize("raw", [rb'{"input": "\\u0000"}', rb'{"input": "\\ud800"}', rb'{"input": "\ud83d\ude00"}'])
def test_escapes_that_only_look_wrong_are_taken(raw: bytes) -> None:
    assert parse(CreateResponse, raw).input == orjson.loads(raw)["input"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": []}, "missing_required_parameter", "input"),
        ({"input": 5}, "invalid_type", "input"),
        ({"input": {"role": "user"}}, "invalid_type", "input"),
        ({"input": [5]}, "invalid_type", "input[0]"),
        ({"input": [HELLO, None]}, "invalid_type", "input[1]"),
        ({"input": [{}]}, "missing_required_parameter", "input[0].role"),
        ({"input": [{"role": "robot", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [{"role": "user", "content": 5}]}, "invalid_type", "input[0].content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "invalid_type", "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{}]}]}, "missing_required_parameter", "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": 1}]}]}, "invalid_type", "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "sound"}]}]}, "invalid_value", "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
         "missing_required_parameter", "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image"}]}]},
         "missing_required_parameter", "input[0].content[1].image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE, "detail": "huge"}]}]},
         "invalid_value", "input[0].content[0].detail"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
         "missing_required_parameter", "input[0].content[0].file_data"),
        ({"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
         "invalid_value", "input[0].content[0].type"),
        ({"input": [{"type": 5}]}, "invalid_type", "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
         "missing_required_parameter", "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]},
         "invalid_type", "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "", "output": "x"}]},
         "string_below_min_length", "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]},
         "invalid_type", "input[0].output"),
        ({"input": [{"type": "reasoning"}]}, "missing_required_parameter", "input[0].summary"),
        ({"input": [{"type": "item_reference", "id": "../x"}]}, "invalid_value", "input[0].id"),
        ({"input": [HELLO] * 2001}, "array_above_max_length", "input"),
        ({"model": 5}, "invalid_type", "model"),
        ({"model": ""}, "string_below_min_length", "model"),
        ({"instructions": ["x"]}, "invalid_type", "instructions"),
        ({"stream": "true"}, "invalid_type", "stream"),
        ({"store": 1}, "invalid_type", "store"),
        ({"temperature": "1"}, "invalid_type", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
        ({"temperature": -1}, "integer_below_min_value", "temperature"),
        ({"top_p": 1.1}, "decimal_above_max_value", "top_p"),
        ({"presence_penalty": -2.5}, "decimal_below_min_value", "presence_penalty"),
        ({"frequency_penalty": 3}, "integer_above_max_value", "frequency_penalty"),
        ({"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens"),
        ({"max_output_tokens": 20.5}, "invalid_type", "max_output_tokens"),
        ({"max_output_tokens": 2**40}, "integer_above_max_value", "max_output_tokens"),
        ({"max_tool_calls": 0}, "integer_below_min_value", "max_tool_calls"),
        ({"safety_identifier": "x" * 65}, "string_above_max_length", "safety_identifier"),
        ({"metadata": []}, "invalid_type", "metadata"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "string_above_max_length", "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "invalid_value", "metadata"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "object_above_max_properties", "metadata"),
        ({"conversation": 5}, "invalid_type", "conversation"),
        ({"conversation": {}}, "missing_required_parameter", "conversation.id"),
        ({"conversation": "thr_0123"}, "invalid_value", "conversation"),
        ({"conversation": "conv_a b"}, "invalid_value", "conversation"),
        ({"conversation": {"id": "conv_" + "a" * 128}}, "string_above_max_length", "conversation.id"),
        ({"previous_response_id": "conv_0123"}, "invalid_value", "previous_response_id"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"},
         "mutually_exclusive_parameters", "previous_response_id"),
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "invalid_value", "tools[0].name"),
        ({"tools": [{"type": "function", "name": "a" * 65}]}, "string_above_max_length", "tools[0].name"),
        ({"tools": [{**TOOL, "parameters": "x"}]}, "invalid_type", "tools[0].parameters"),
        ({"tool_choice": 5}, "invalid_type", "tool_choice"),
        ({"tool_choice": "always"}, "invalid_value", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"name": "weather"}}, "missing_required_parameter", "tool_choice.type"),
        ({"tool_choice": {"type": "mcp"}}, "invalid_value", "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "time"}}, "invalid_value", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": []}},
         "array_below_min_length", "tool_choice.tools"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}},
         "missing_required_parameter", "text.format.schema"),
        ({"text": {"verbosity": "chatty"}}, "invalid_value", "text.verbosity"),
        ({"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
        ({"include": ["everything"]}, "invalid_value", "include[0]"),
        ({"temprature": 1}, "unknown_parameter", "temprature"),
        ({"prompt": {"id": "pmpt_1"}}, "unknown_parameter", "prompt"),
    ],
)  # fmt: skip
def test_a_bad_response_body_is_refused_with_its_field(fields: dict[str, Any], code: str, param: str) -> None:
    body = fields if not fields or "input" in fields else {"input": "secret words", **fields}
    told = refusal(CreateResponse, orjson.dumps(body))
    assert told[:2] == (code, param)
    assert param.rpartition(".")[2] in told[2]
    assert "secret words" not in told[2]


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"5", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    code, param, message = refusal(CreateResponse, raw)
    assert (code, param) == ("invalid_type", None)
    assert "expected an object" in message


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"1e999", "finite"),
        (b"-1e999", "finite"),
        (b"NaN", "finite"),
        (b"123456789012345678901234567890", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b"[" * 101 + b"]" * 101, "levels"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after", "param"),
    [
        (b'{"input": [{"type": "future", "x": ', b"}]}", "input[0]"),
        (b'{"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"x": ', b"}}]}",
         "tools[0].parameters"),
        (b'{"input": [{"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": [{"x": ',
         b"}]}]}]}", "input[0].content[0]"),
    ],
)  # fmt: skip
def test_free_form_json_that_would_change_when_kept_is_refused(
    before: bytes, value: bytes, after: bytes, told: str, param: str
) -> None:
    code, blamed, message = refusal(CreateResponse, before + value + after)
    assert (code, blamed) == ("invalid_value", param)
    assert told in message


@pytest.mark.parametrize(
    ("model", "body", "code", "param"),
    [
        (CreateConversation, {"items": [HELLO] * 21}, "array_above_max_length", "items"),
        (CreateConversation, {"items": "x"}, "invalid_type", "items"),
        (CreateConversation, {"metadata": {str(n): "x" for n in range(17)}}, "object_above_max_properties", "metadata"),
        (CreateConversation, {"name": "x"}, "unknown_parameter", "name"),
        (UpdateConversation, {}, "missing_required_parameter", "metadata"),
        (UpdateConversation, {"metadata": {"a": None}}, "invalid_type", "metadata.a"),
        (CreateItems, {}, "missing_required_parameter", "items"),
        (CreateItems, {"items": []}, "array_below_min_length", "items"),
        (CreateItems, {"items": [HELLO] * 21}, "array_above_max_length", "items"),
        (CreateItems, {"items": [HELLO, {"type": "item_reference", "id": "msg_1"}]}, "invalid_value", "items[1].type"),
        (CreateConversation, {"items": [{"id": "msg_1"}]}, "invalid_value", "items[0].type"),
        (CreateItems, {"items": [HELLO, {"role": "user"}]}, "missing_required_parameter", "items[1].content"),
    ],
)
def test_a_bad_conversation_body_is_refused(model: type[BaseModel], body: Any, code: str, param: str) -> None:
    assert refusal(model, orjson.dumps(body))[:2] == (code, param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"limit": "1" * 5000}, "limit"),
        ({"limit": ""}, "limit"),
        ({"order": "newest"}, "order"),
        ({"after": "msg_\0"}, "after"),
        ({"after": "a" * 129}, "after"),
    ],
)
def test_a_bad_list_query_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_list_query(query)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ""},
        {"conversation": "conv_1"},
        {"previous_response_id": "resp_1", "input": []},
        {"input": "x", "store": None, "stream": None, "background": None, "temperature": None, "metadata": None},
        {"input": "x", "temperature": 2, "top_p": 0, "max_output_tokens": 16, "presence_penalty": -2},
        {"input": "x", "metadata": {"k" * 64: "é" * 512, **{str(number): "" for number in range(15)}}},
        {"input": "x", "tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
        {"input": "x", "tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto",
                                                        "tools": [{"type": "function", "name": "weather"}]}},
        {"input": "x", "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}},
        {"input": "x", "user": "u1", "prompt_cache_key": "k", "prompt_cache_retention": "24h",
         "stream_options": {"include_obfuscation": False}, "include": ["reasoning.encrypted_content"]},
        {"input": [HELLO] * 2000},
    ],
)  # fmt: skip
def test_what_openai_takes_is_taken(fields: dict[str, Any]) -> None:
    body = parse(CreateResponse, orjson.dumps(fields))
    assert (body.store, body.stream) == (True, False)


@pytest.mark.parametrize(
    ("item", "stored"),
    [
        (HELLO, {"type": "message", "status": "completed", "role": "user",
                 "content": [{"type": "input_text", "text": "hello"}]}),
        ({"id": "msg_old", "type": "message", "role": "developer", "status": None,
          "content": [{"type": "input_text", "text": "be kind"}]},
         {"type": "message", "status": "completed", "role": "developer",
          "content": [{"type": "input_text", "text": "be kind"}]}),
        ({"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]},
         {"type": "message", "status": "completed", "role": "user",
          "content": [{"type": "input_image", "image_url": IMAGE, "detail": "auto"}]}),
        ({"role": "user", "content": [{"type": "input_file", "filename": None, "file_data": IMAGE}]},
         {"type": "message", "status": "completed", "role": "user",
          "content": [{"type": "input_file", "file_data": IMAGE}]}),
        ({"role": "assistant", "content": "hi", "status": "in_progress"},
         {"type": "message", "status": "completed", "role": "assistant",
          "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]}),
        ({"role": "assistant", "status": "incomplete", "phase": "commentary",
          "content": [{"type": "refusal", "refusal": "no"}]},
         {"type": "message", "status": "incomplete", "role": "assistant", "phase": "commentary",
          "content": [{"type": "refusal", "refusal": "no"}]}),
        ({"type": "function_call", "id": "fc_1", "call_id": "c" * 300, "name": "a.b", "arguments": "{}"},
         {"type": "function_call", "status": "completed", "call_id": "c" * 300, "name": "a.b", "arguments": "{}"}),
        ({"type": "function_call_output", "call_id": "c", "output": "21"},
         {"type": "function_call_output", "status": "completed", "call_id": "c", "output": "21"}),
        ({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "21"}]},
         {"type": "function_call_output", "status": "completed", "call_id": "c",
          "output": [{"type": "input_text", "text": "21"}]}),
        ({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}],
          "encrypted_content": None, "content": [{"type": "reasoning_text", "text": "t"}]},
         {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}],
          "content": [{"type": "reasoning_text", "text": "t"}]}),
        ({"type": "compaction", "encrypted_content": "e"}, {"type": "compaction", "encrypted_content": "e"}),
    ],
)  # fmt: skip
def test_items_are_stored_in_the_form_of_the_specification(item: dict[str, Any], stored: dict[str, Any]) -> None:
    [made] = parse(CreateItems, orjson.dumps({"items": [item]})).new_items()
    validate_item(made)
    assert made.pop("id") != item.get("id")
    assert made == stored


def test_items_of_an_unknown_type_are_kept_as_they_came() -> None:
    item = {"type": "web_search_call", "id": "ws_1", "action": {"query": "é", "n": [2**64 - 1, 0.1, None, True]}}
    [made] = parse(CreateItems, orjson.dumps({"items": [item]})).new_items()
    assert made.pop("id").startswith("item_")
    assert made == {"type": "web_search_call", "action": item["action"]}


def test_a_body_full_of_mistakes_is_refused_at_the_first() -> None:
    """Telling each of 300,000 mistakes takes five seconds, in which the process answers nobody else."""
    began = time.process_time()
    refusal(CreateResponse, b'{"input": [{"role": "user", "content": [' + b"1, " * 300_000 + b"1]}]}")
    assert time.process_time() - began < 1
