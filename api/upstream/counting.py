"""How many tokens a question has for its model: the provider's own count where there is a way to it, else an estimate.

A vocabulary of ours would fit one family of models and be wrong for every other (docs/adr/0009-counting-tokens.md).
"""

import time
from collections.abc import Awaitable, Callable

from api.upstream.estimate import estimated_input_tokens, has_media, text_of
from api.upstream.exchange import Ask, Count, Json, UpstreamError

# What a server knows to count may change with its next version.
LOOK_AGAIN_SECONDS = 300.0
# What the endpoint `input_tokens` takes of a question.
COUNTED = ("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning")

Post = Callable[[str, Json], Awaitable[Json | None]]
"""Ask another path of the server: its answer, or None when it has no such endpoint. Raises UpstreamError."""
Way = Callable[[Post, Ask, Json], Awaitable[int | None]]
"""`Json`: the body with which the question itself would be asked."""


class Counter:
    """Finds out with its first question how its server counts."""

    def __init__(self, post: Post, ways: tuple[Way, ...], body_of: Callable[[Ask], Json]) -> None:
        self._post = post
        self._all = self._ways = ways
        self._body_of = body_of
        self._look_again_at = 0.0

    async def count(self, ask: Ask) -> Count:
        """Never raises for what the server does: then the count is an estimate."""
        body = self._body_of(ask)
        now = time.monotonic()
        if now > self._look_again_at:
            self._ways = self._all
        try:
            for way in self._ways:
                tokens = await way(self._post, ask, body)
                if tokens is not None:
                    self._settle((way,), now)
                    # The template knows where an image goes, and not what it costs.
                    return Count(tokens, estimated=way is _by_text or (way is not _by_input_tokens and has_media(ask)))
        except UpstreamError:
            return Count(estimated_input_tokens(ask), estimated=True)
        self._settle((), now)
        return Count(estimated_input_tokens(ask), estimated=True)

    def _settle(self, ways: tuple[Way, ...], now: float) -> None:
        if self._ways != ways:
            self._ways, self._look_again_at = ways, now + LOOK_AGAIN_SECONDS


async def _by_messages(post: Post, _: Ask, chat: Json) -> int | None:
    """vLLM: the whole chat through the model's template."""
    return _whole(await post("tokenize", {**_chat_alone(chat), "add_generation_prompt": True}), "count")


async def _by_template(post: Post, ask: Ask, chat: Json) -> int | None:
    """llama.cpp: the template first, then its text."""
    prompt = (await post("apply-template", _chat_alone(chat)) or {}).get("prompt")
    if not isinstance(prompt, str):
        return None
    text = {"model": ask.model, "content": prompt, "add_special": True, "parse_special": True}
    tokens = (await post("tokenize", text) or {}).get("tokens")
    return len(tokens) if isinstance(tokens, list) else None


async def _by_text(post: Post, ask: Ask, _: Json) -> int | None:
    """llama-cpp-python: the text alone, without what the template adds to it."""
    return _whole(await post("extras/tokenize/count", {"model": ask.model, "input": text_of(ask)}), "count")


async def _by_input_tokens(post: Post, _: Ask, body: Json) -> int | None:
    """The Responses API has an endpoint for it."""
    return _whole(await post("input_tokens", {name: body[name] for name in COUNTED if name in body}), "input_tokens")


def _chat_alone(chat: Json) -> Json:
    return {name: chat[name] for name in ("model", "messages", "tools") if name in chat}


def _whole(answer: Json | None, name: str) -> int | None:
    value = (answer or {}).get(name)
    return value if isinstance(value, int) else None


CHAT_WAYS: tuple[Way, ...] = (_by_messages, _by_template, _by_text)
RESPONSES_WAYS: tuple[Way, ...] = (_by_input_tokens,)
