"""A turn told in the shapes of chat completions: one choice, without the items' ids and without reasoning."""

from typing import Any

import orjson

from api import errors
from api.errors import ApiError
from api.turn.events import KEEPALIVE, payload
from api.turn.follow import TERMINAL

Json = dict[str, Any]

REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
# As strict as the SDK's types are; providers' own names (`reasoning_content`) are not among them.
FIELDS = {"response.output_text.delta": b"content", "response.refusal.delta": b"refusal"}
ROLE = b'{"role":"assistant","content":"","refusal":null}'


def completion_id(response: str) -> str:
    """The response of a stored completion is found again by its id: `resp_` in the place of `chatcmpl-`."""
    return "chatcmpl-" + response.partition("_")[2]


def completion(body: bytes) -> bytes:
    """The body of a chat completion from that of an ended response. Raises ApiError for one that is not whole."""
    response: Json = orjson.loads(body)
    reason = _finish_reason(response)
    choice = {"index": 0, "message": _message(response), "logprobs": None, "finish_reason": reason}
    return orjson.dumps(
        {
            "id": completion_id(response["id"]),
            "object": "chat.completion",
            "created": response["created_at"],
            "model": response["model"],
            "choices": [choice],
            "usage": _usage(response["usage"]),
            "system_fingerprint": None,
        }
    )


def _finish_reason(response: Json) -> str:
    match response:
        case {"status": "completed"}:
            called = any(item["type"] == "function_call" for item in response["output"])
            return "tool_calls" if called else "stop"
        case {"status": "incomplete", "incomplete_details": {"reason": reason}} if reason in REASONS:
            return REASONS[reason]
        case {"status": "failed", "error": {"code": code, "message": message}}:
            raise errors.from_upstream(502, code, message, None, {})
        case _:
            raise errors.response_interrupted(response["id"], stored=response["store"])


def _message(response: Json) -> Json:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    said = [part["text"] for part in parts if part["type"] == "output_text"]
    refused = [part["refusal"] for part in parts if part["type"] == "refusal"]
    calls = [_call(item) for item in response["output"] if item["type"] == "function_call"]
    message: Json = {
        "role": "assistant",
        "content": "".join(said) if said or not (refused or calls) else None,
        "refusal": "".join(refused) if refused else None,
        "annotations": [],
    }
    return {**message, "tool_calls": calls} if calls else message


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _usage(usage: Json) -> Json:
    counts: Json = {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": usage["input_tokens_details"],
        "completion_tokens_details": usage["output_tokens_details"],
    }
    return {**counts, "estimated": True} if "estimated" in usage else counts


def error_frame(error: ApiError) -> bytes:
    """What went wrong after the answer had begun; the SDKs raise it."""
    return b"data: " + error.body() + b"\n\n"


class Chunks:
    """The chunks of one stream; take the frames of its response's stream in order."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._start = b""
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._began = False
        self._calls: dict[int, int] = {}

    def take_all(self, frames: list[bytes]) -> tuple[list[bytes], ApiError | None]:
        """The frames for those of a response's stream, up to its end; and what it failed with, if it did."""
        ready: list[bytes] = []
        try:
            for frame in frames:
                ready += [frame] if frame == KEEPALIVE else self._take(payload(frame))
        except ApiError as error:
            return ready, error
        return ready, None

    def _take(self, event: Json) -> list[bytes]:
        kind = event["type"]
        if kind in FIELDS:
            return self._chunks(b'{"%b":%b}' % (FIELDS[kind], orjson.dumps(event["delta"])))
        match event:
            case {"type": "response.created", "response": response}:
                self._head(response)
            case {"type": "response.output_item.added", "output_index": at, "item": {"type": "function_call"} as item}:
                self._calls[at] = len(self._calls)
                return self._piece(at, _call(item))
            case {"type": "response.function_call_arguments.delta", "output_index": at, "delta": delta}:
                return self._piece(at, {"function": {"arguments": delta}})
            case {"type": kind, "response": response} if kind in TERMINAL:
                return self._ending(response)
        return []

    def _head(self, response: Json) -> None:
        head = {
            "id": completion_id(response["id"]),
            "object": "chat.completion.chunk",
            "created": response["created_at"],
            "model": response["model"],
            "system_fingerprint": None,
        }
        self._start = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['

    def _chunks(self, *deltas: bytes, reason: bytes = b"null") -> list[bytes]:
        told = deltas if self._began else (ROLE, *deltas)
        self._began = True
        choice = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]'
        # Only the last of them ends the choice.
        return [
            self._start + choice % (delta, b"null" if index < len(told) - 1 else reason) + self._end
            for index, delta in enumerate(told)
        ]

    def _piece(self, at: int, piece: Json) -> list[bytes]:
        return self._chunks(orjson.dumps({"tool_calls": [{"index": self._calls[at], **piece}]}))

    def _ending(self, response: Json) -> list[bytes]:
        reason = b'"%b"' % _finish_reason(response).encode()
        frames = []
        if not self._began:
            # Its log has expired, so this is all that is known; or nothing was said.
            self._head(response)
            frames = self._chunks(orjson.dumps(_whole_delta(response)))
        frames += self._chunks(b"{}", reason=reason)
        if self._include_usage:
            usage = orjson.dumps(_usage(response["usage"]))
            frames.append(self._start + b'],"usage":%b}\n\n' % usage)
        return frames


def _whole_delta(response: Json) -> Json:
    message = _message(response)
    calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls", []))]
    delta: Json = {"content": message["content"], "refusal": message["refusal"]}
    return {**delta, "tool_calls": calls} if calls else delta
