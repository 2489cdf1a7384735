"""What the edge takes of POST /v1/chat/completions, and what it refuses: `param` and code."""

from typing import Any

import orjson
import pytest

from api.errors import ApiError
from api.schemas.chat import CreateChatCompletion
from api.schemas.edge import parse

Json = dict[str, Any]


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "array_below_min_length"),
        ({"messages": ["x"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [user(7)]}, "messages[0].content", "invalid_type"),
        ({"messages": [user([{"type": "input_audio"}])]}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": [user([{"type": "image_url", "image_url": {}}])]},
         "messages[0].content[0].image_url.url", "missing_required_parameter"),
        ({"messages": [user([{"type": "file", "file": {"file_id": "f"}}])]},
         "messages[0].content[0].file.file_data", "missing_required_parameter"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [user("a\0b")]}, "messages[0].content", "invalid_value"),
        ({"n": 2}, "n", "integer_above_max_value"),
        ({"logprobs": True}, "logprobs", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "integer_above_max_value"),
        ({"modalities": ["text", "audio"]}, "modalities[1]", "invalid_value"),
        ({"functions": []}, "functions", "unknown_parameter"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": ""}, "stop", "string_below_min_length"),
        ({"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias", "object_above_max_properties"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7", "integer_above_max_value"),
        ({"temperature": 3}, "temperature", "integer_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "mutually_exclusive_parameters"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
         "response_format.json_schema.schema", "missing_required_parameter"),
        ({"metadata": {"conversation": "x"}, "store": True}, "metadata.conversation", "invalid_value"),
        ({"metadata": {"conversation": "conv_1"}}, "store", "missing_required_parameter"),
    ],
)  # fmt: skip
def test_what_is_refused(body: Json, param: str, code: str) -> None:
    whole: Json = {"model": "fake", "messages": [user("x")], **body}
    with pytest.raises(ApiError) as error:
        parse(CreateChatCompletion, orjson.dumps(whole))
    assert (error.value.status, error.value.param, error.value.code) == (400, param, code)
