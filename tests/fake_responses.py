"""What tests/fake_upstream.py says at /v1/responses: as real Responses servers do, well and badly.

The models of chat completions that are named here answer here, too; every other name is a script of this module.

    fake, fake-bench-N, fake-history, fake-tool, fake-S…, fake-hang…, fake-hold-NAME, fake-cut, fake-reset, fake-drop
    fake-foreign          refuses reasoning that it can't open, else answers what it was sent
"""

from typing import Any

import orjson
from aiohttp import web

from tests.fake_context import tokens_of
from tests.fake_scripts import HTML, Script, Voice, error_body

Json = dict[str, Any]
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}
DONE = b"data: [DONE]\n\n"


def sse(event: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def response(status: str, output: list[Json], **fields: Any) -> Json:
    head = {"id": "resp_1", "object": "response", "created_at": 1700000000, "model": "fake"}
    return {**head, "status": status, "output": output, "usage": USAGE, "error": None, **fields}


def end(*output: Json, kind: str = "completed", **fields: Any) -> Json:
    return {"type": f"response.{kind}", "response": response(kind, list(output), **fields)}


def stopped(reason: str) -> Json:
    return end(message("Hello world"), kind="incomplete", incomplete_details={"reason": reason})


def message(text: str, item_id: str = "msg_1") -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def call(call_id: str, name: str, arguments: str) -> Json:
    item = {"id": f"fc_{call_id}", "type": "function_call", "status": "completed"}
    return {**item, "call_id": call_id, "name": name, "arguments": arguments}


def added(item: Json, index: int = 0) -> Json:
    empty: Json = {"arguments": ""} if "arguments" in item else {"content": []}
    return {"type": "response.output_item.added", "output_index": index, "item": {**item, **empty}}


def done(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(text: str, index: int = 0, kind: str = "output_text", **fields: Any) -> Json:
    place = {"item_id": f"msg_{index + 1}", "output_index": index, "content_index": 0, "logprobs": []}
    return {"type": f"response.{kind}.delta", **place, "delta": text, **fields}


def arguments(text: str, index: int) -> Json:
    return {"type": "response.function_call_arguments.delta", "item_id": "fc", "output_index": index, "delta": text}


def summary(number: int, text: str) -> Json:
    place = {"item_id": "rs_1", "output_index": 0, "summary_index": number}
    return {"type": "response.reasoning_summary_text.delta", **place, "delta": text}


def annotation(number: int, **fields: Any) -> Json:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "annotation_index": number}
    return {"type": "response.output_text.annotation.added", **place, "annotation": fields}


def without(event: Json, *names: str) -> Json:
    return {name: value for name, value in event.items() if name not in names}


def beginning() -> list[Json]:
    return [
        {"type": f"response.{kind}", "response": response("in_progress", [])} for kind in ("created", "in_progress")
    ]


def words(text: str, index: int = 0) -> list[Json]:
    """A whole message, in deltas of one word."""
    item = message(text, f"msg_{index + 1}")
    pieces = [delta(piece, index) for piece in text.replace(" ", "| ").split("|")]
    ended = {**without(delta("", index), "delta"), "type": "response.output_text.done", "text": text}
    return [added(item, index), *pieces, ended, done(item, index)]


def events(*told: Json, tail: bytes = DONE) -> Script:
    return Script([sse(one) for one in (*beginning(), *told)] + ([tail] if tail else []))


def joined(script: Script) -> bytes:
    return b"".join(script.pieces)


HELLO = message("Hello world")
OSLO = call("call_a", "weather", '{"city":"Oslo"}')
NOW = call("call_b", "now", "{}")
THOUGHT: Json = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
    "encrypted_content": "sealed",
}
SAID = [added(HELLO), delta("Hello"), delta(" world")]
PLAIN = events(*words("Hello world"), end(HELLO))
FAILED = {"code": "server_error", "message": "CUDA at proxy-7"}
CITED = {"url": "https://example.org", "title": "Example", "start_index": 0, "end_index": 5}

SCRIPTS: dict[str, Script] = {
    "plain": PLAIN,
    "no-done": events(*words("Hello world"), end(HELLO), tail=b""),
    "no-last-line": events(*words("Hello world"), tail=sse(end(HELLO))[:-2]),
    "crlf": Script([joined(PLAIN).replace(b"\n", b"\r\n")]),
    "no-space": Script([joined(PLAIN).replace(b"data: ", b"data:")]),
    "no-event-lines": Script([b"data:" + piece.partition(b"\ndata:")[2] for piece in PLAIN.pieces[:-1]]),
    "comments": Script([b": keep-alive\n\n" + piece for piece in PLAIN.pieces]),
    "bytewise": Script([bytes([byte]) for byte in joined(events(*words("Grüße 🌍"), end(message("Grüße 🌍"))))]),
    "no-index": events(
        *(without(one, "output_index") for one in words("Hello world")),
        without(added(OSLO), "output_index"),
        {**without(arguments(OSLO["arguments"], 1), "output_index"), "item_id": OSLO["id"]},
        without(done(OSLO), "output_index"),
        end(HELLO, OSLO),
    ),
    "other-ids": events(
        *({**one, "item_id": f"msg_x{number}"} for number, one in enumerate(words("Hello world"))), end(HELLO)
    ),
    "other-ids-no-end": events(
        *(without({**one, "item_id": f"msg_x{number}"}, "output_index") for number, one in enumerate(SAID)), end(HELLO)
    ),
    "no-deltas": events(added(HELLO), done(HELLO), end(HELLO)),
    "only-end": events(end(HELLO)),
    "json": Script([orjson.dumps(response("completed", [HELLO]))], "application/json"),
    "no-usage": events(*words("Hello world"), end(HELLO, usage=None)),
    "nul": events(*words("a\0b"), end(message("a\0b"))),
    "refusal": events(added(HELLO), delta("I ", kind="refusal"), delta("won't", kind="refusal"), end()),
    "thinking": events(delta("Let me think", kind="reasoning_text"), *words("Hello world", 1), end()),
    "reasoning": events(
        added({**THOUGHT, "summary": []}),
        *(summary(0, "First"), summary(0, "."), summary(1, "Then.")),
        done(THOUGHT),
        *words("Hello world", 1),
        end(THOUGHT, HELLO),
    ),
    "sealed": events(
        done({**THOUGHT, "summary": []}), *words("Hello world", 1), end({**THOUGHT, "summary": []}, HELLO)
    ),
    "two-messages": events(*words("Hello"), *words("world", 1), end(message("Hello"), message("world", "msg_2"))),
    "likely": events(
        added(message("Hi")),
        delta("Hi", logprobs=[{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]),
        done(message("Hi")),
        end(message("Hi")),
    ),
    "cited": events(
        *SAID,
        annotation(0, type="url_citation", **CITED),
        annotation(1, type="file_citation", file_id="file_1", index=0, filename="a"),
        annotation(2, type="url_citation", url="https://example.org"),
        end(HELLO),
    ),
    "tools": events(
        *(added(OSLO), added(NOW, 1), arguments('{"city":', 0), arguments('"Oslo"}', 0)),
        *(done(OSLO), done(NOW, 1), end(OSLO, NOW)),
    ),
    "tools-at-once": events(done(OSLO), done(call("", "now", ""), 1), end(OSLO)),
    "tools-at-the-end": events(*words("Hello world"), end(HELLO, OSLO)),
    "length": events(*words("Hello world"), stopped("max_output_tokens")),
    "filter": events(*words("Hello world"), stopped("content_filter")),
    "failed": events(*SAID, end(kind="failed", error=FAILED)),
    "failed-first": events(end(kind="failed", error={"code": "invalid_prompt", "message": "Too hot"})),
    "failed-rate": events(end(kind="failed", error={"code": "rate_limit_exceeded", "message": "slow down"})),
    "failed-context": events({"type": "error", "code": "context_length_exceeded", "message": "too long"}),
    "failed-json": Script([orjson.dumps(response("failed", [], error=FAILED))], "application/json"),
    "error-event": events(*SAID, {"type": "error", "code": "server_error", "message": "CUDA", "param": None}),
    "error-nested": events(
        *SAID, {"type": "error", "error": {"type": "server_error", "code": None, "message": "CUDA"}}
    ),
    "cancelled": events(*SAID, {"type": "response.completed", "response": response("cancelled", [])}),
    "no-end": events(*SAID, tail=b""),
    "only-done": events(*SAID),
    "half-event": events(*SAID, tail=b"event: response.comp"),
    "broken-json": events(*SAID, tail=b'data: {"type":"respo\n\n'),
    "odd-shape": events(*SAID, {"type": "response.output_text.delta", "delta": 5, "output_index": 0}),
    "lost-call": events(*SAID, arguments("{}", 7)),
    "html": Script([HTML], "text/html"),
}


def as_chat(body: Json) -> Json:
    """The question as chat completions would have it, for what both APIs of the fake do in the same way."""
    items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    system = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    return {**body, "messages": system + [_message(item) for item in items]}


def _message(item: Json) -> Json:
    match item.get("type", "message"):
        case "function_call":
            return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": item["name"]}}]}
        case "function_call_output":
            return {"role": "tool", "content": item["output"]}
        case "message":
            return {"role": item["role"], "content": item["content"]}
        case kind:
            return {"role": kind, "content": item.get("encrypted_content", "")}


def refused(body: Json) -> bytes | None:
    """OpenAI's error where another account's reasoning comes back."""
    if body["model"] != "fake-foreign" or all(message["role"] != "reasoning" for message in body["messages"]):
        return None
    return error_body(400, "The encrypted content for item rs_1 could not be verified.", "invalid_encrypted_content")


def _counted(count: Json) -> Json:
    asked, answered = count["prompt_tokens"], count["completion_tokens"]
    return {**USAGE, "input_tokens": asked, "output_tokens": answered, "total_tokens": asked + answered}


VOICE = Voice(
    b"".join(map(sse, (*beginning(), added(HELLO)))),
    lambda word: sse(delta(word)),
    lambda text: sse(done(message(text))),
    lambda text, count: sse(end(message(text), usage=_counted(count))) + DONE,
    lambda text, count: orjson.dumps(response("completed", [message(text)], usage=_counted(count))),
)


def called(body: Json) -> Script:
    """A call of the first tool."""
    item = call("call_fake", body["tools"][0]["name"], '{"city": "Oslo"}')
    if not body.get("stream"):
        return Script([orjson.dumps(response("completed", [item]))], "application/json")
    return events(added(item), arguments('{"city": ', 0), arguments('"Oslo"}', 0), done(item), end(item))


async def count(request: web.Request) -> web.Response:
    """POST /v1/responses/input_tokens: a word is a token, as in tests/fake_context.py."""
    body = as_chat(orjson.loads(await request.read()))
    counted = {"object": "response.input_tokens", "input_tokens": tokens_of(body["messages"])}
    return web.Response(body=orjson.dumps(counted), content_type="application/json")
