"""The built-in model `echo`: it says what the user said. The service runs with nothing but itself."""

import asyncio
import re
from collections.abc import AsyncGenerator

from api.upstream.estimate import estimated_usage
from api.upstream.exchange import Ask, Delta, Finish, Text

NAME = "echo"
WORD = re.compile(r"\s*\S+\s*?|\s+")


class Echo:
    async def stream(self, ask: Ask) -> AsyncGenerator[list[Delta], None]:
        text = _last_words(ask)
        for word in WORD.findall(text):
            yield [Text(word)]
            # Nothing else waits here, and a long text must not keep the event loop from everybody else.
            await asyncio.sleep(0)
        yield _ending(ask, text)

    async def complete(self, ask: Ask) -> list[Delta]:
        text = _last_words(ask)
        said: list[Delta] = [Text(text)] if text else []
        return said + _ending(ask, text)

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
