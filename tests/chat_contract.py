"""Chat completions held against the SDK's own types, read strictly: nothing missing, nothing more."""

from typing import Any

import orjson
from openai import BaseModel
from openai.types.chat import ChatCompletion, ChatCompletionChunk

Json = dict[str, Any]
# Ours, and documented: the provider counted nothing.
OWN = {"estimated"}
ERROR_FIELDS = {"message", "type", "param", "code"}
KEEPALIVE = b": keep-alive"


def check_completion(answer: Json) -> None:
    completion = ChatCompletion.model_validate(answer, strict=True)
    assert _unknown(completion) == []
    [choice] = completion.choices
    called = bool(choice.message.tool_calls)
    assert (choice.finish_reason == "tool_calls") == called or choice.finish_reason == "length"
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage is not None


def check_chunks(body: bytes) -> None:
    """A whole stream: the role first, one end, the usage behind it, and [DONE]; or an error before [DONE]."""
    *frames, done, rest = body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    told = [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames if frame != KEEPALIVE]
    if "error" in told[-1]:
        assert told.pop()["error"].keys() == ERROR_FIELDS
        ended = False
    else:
        ended = True
    chunks = [ChatCompletionChunk.model_validate(one, strict=True) for one in told]
    for chunk in chunks:
        assert _unknown(chunk) == []
        assert (chunk.id, chunk.created, chunk.model) == (chunks[0].id, chunks[0].created, chunks[0].model)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [choice.delta.role for choice in choices] == ["assistant", *[None] * (len(choices) - 1)]
    reasons = [choice.finish_reason for choice in choices]
    assert [reason is not None for reason in reasons] == [False] * (len(reasons) - 1) + [ended]
    if ended and (with_usage := "usage" in told[0]):
        assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [with_usage]
        assert chunks[-1].choices == []


def _unknown(model: BaseModel) -> list[str]:
    """Fields that the SDK's types do not have."""
    found = [name for name in model.model_extra or {} if name not in OWN]
    for value in model.__dict__.values():
        for member in value if isinstance(value, list) else [value]:
            if isinstance(member, BaseModel):
                found += _unknown(member)
    return found
