"""What tests/fake_upstream.py knows of contexts and of counting: a word is a token.

    fake-context-N        holds N tokens, those of `max_tokens` among them; a longer question is refused with numbers
    fake-blind-N          the same, refused without numbers

Whoever brings a transcript gets a summary: how many words it has, and what the summary so far was.

At /vllm and /llama beside the plain paths are the counting endpoints of vLLM and llama.cpp, each with its own /v1.
"""

import re
from typing import Any

import orjson
from aiohttp import web

from tests.fake_scripts import error_body

Json = dict[str, Any]
TRANSCRIPT = re.compile("<transcript>\n(.*)\n</transcript>", re.DOTALL)
CONTEXT = re.compile(r"(context|blind)-(\d+)")


def words_of(message: Json) -> list[str]:
    if calls := message.get("tool_calls"):
        return [word for call in calls for word in ("call", call["function"]["name"])]
    content = message["content"] or ""
    text = content if isinstance(content, str) else " ".join(part.get("text", part["type"]) for part in content)
    return text.split()


def tokens_of(messages: list[Json]) -> int:
    return sum(len(words_of(message)) for message in messages)


def over_context(body: Json, name: str) -> web.Response | None:
    """The refusal of a question that is too long, if it is."""
    match = CONTEXT.fullmatch(name)
    if match is None:
        return None
    kind, size = match[1], int(match[2])
    asked = tokens_of(body["messages"]) + (body.get("max_tokens") or 1)
    if asked <= size:
        return None
    message = "The prompt is too long."
    if kind == "context":
        message = f"This model's maximum context length is {size} tokens. However, you requested {asked} tokens."
    return web.Response(status=400, body=error_body(400, message, "context_length_exceeded"))


def summary_of(messages: list[Json]) -> str:
    transcript = TRANSCRIPT.fullmatch(str(messages[-1]["content"]))
    if transcript is None:
        return ""
    so_far = messages[0]["content"].partition("The summary so far, which yours must take in:\n")[2]
    return f"{len(transcript[1].split())} words" + (f" after {so_far}" if so_far else "")


async def _vllm_tokenize(request: web.Request) -> web.Response:
    body = orjson.loads(await request.read())
    assert body["add_generation_prompt"] is True
    count = tokens_of(body["messages"]) + 10 * len(body.get("tools", []))
    return _json({"count": count, "max_model_len": 1000, "tokens": list(range(count))})


async def _llama_template(request: web.Request) -> web.Response:
    body = orjson.loads(await request.read())
    return _json({"prompt": " ".join(word for message in body["messages"] for word in words_of(message))})


async def _llama_tokenize(request: web.Request) -> web.Response:
    """Without `content` it finds nothing, and says so."""
    body = orjson.loads(await request.read())
    return _json({"tokens": list(range(len(body.get("content", "").split())))})


def _json(answer: Json) -> web.Response:
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


def add_counting(router: web.UrlDispatcher) -> None:
    router.add_post("/vllm/tokenize", _vllm_tokenize)
    router.add_post("/llama/apply-template", _llama_template)
    router.add_post("/llama/tokenize", _llama_tokenize)
