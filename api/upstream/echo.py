"""The built-in model `echo`: it says what the user said. The service runs with nothing but itself."""

import asyncio
import re

from api.upstream.estimate import estimated_input_tokens, estimated_usage
from api.upstream.exchange import Ask, Count, Delta, Finish, Stream, Text

NAME = "echo"
WORD = re.compile(r"\s*\S+\s*?|\s+")


class _Words:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._text = _last_words(ask)
        self._words = WORD.finditer(self._text)
        self._over = False
        self.first = self._next()

    def _next(self) -> list[Delta]:
        if word := next(self._words, None):
            return [Text(word[0])]
        if self._over:
            return []
        self._over = True
        return _ending(self._ask, self._text)

    async def read(self) -> list[Delta]:
        # Nothing else waits here, and a long text must not keep the event loop from everybody else.
        await asyncio.sleep(0)
        return self._next()

    def close(self) -> None:
        pass


class Echo:
    async def begin(self, ask: Ask) -> Stream:
        return _Words(ask)

    async def complete(self, ask: Ask) -> list[Delta]:
        text = _last_words(ask)
        said: list[Delta] = [Text(text)] if text else []
        return said + _ending(ask, text)

    async def count(self, ask: Ask) -> Count:
        return Count(estimated_input_tokens(ask), estimated=True)

    async def models(self) -> list[str]:
        return [NAME]

    async def close(self) -> None:
        pass


def _ending(ask: Ask, text: str) -> list[Delta]:
    return [estimated_usage(ask, len(text)), Finish("stop")]


def _last_words(ask: Ask) -> str:
    for item in reversed(ask.items):
        if item["type"] == "message" and item["role"] == "user":
            content = item["content"]
            return (
                content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)
            )
    return ""
