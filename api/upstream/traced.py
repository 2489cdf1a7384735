"""The span of a question to a model, as OpenTelemetry's conventions for generative AI have it."""

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

from api.upstream.exchange import Ask, Delta, Finish, Usage
from api.upstream.said import Heard, input_messages, instructions
from core import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

OPTIONS = {
    "gen_ai.request.max_tokens": "max_output_tokens",
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
}


class Question:
    """A question under way."""

    def __init__(self, span: "Span", ask: Ask) -> None:
        self.span = span
        self._ask = ask
        self._asked_at = time.monotonic()
        self._seconds: float | None = None
        self._last: list[Delta] = []
        self._heard = Heard() if tracing.content() else None

    def hear(self, deltas: list[Delta]) -> None:
        if self._seconds is None:
            self._seconds = time.monotonic() - self._asked_at
        self._last = deltas
        if self._heard is not None:
            self._heard.add(deltas)

    def end(self, error: BaseException | None) -> None:
        if self._seconds is not None:
            self.span.set_attribute("gen_ai.response.time_to_first_chunk", self._seconds)
        for delta in self._last:
            match delta:
                case Usage():
                    self.span.set_attributes(_usage(delta))
                case Finish(reason):
                    self.span.set_attribute("gen_ai.response.finish_reasons", [reason])
                case _:
                    pass
        if self._heard is not None:
            self.span.set_attributes(
                {
                    "gen_ai.system_instructions": instructions(self._ask),
                    "gen_ai.input.messages": input_messages(self._ask),
                    "gen_ai.output.messages": self._heard.messages(),
                }
            )
        tracing.end(self.span, error)


def _usage(usage: Usage) -> tracing.Attributes:
    told = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {**told, "chatbot.usage.estimated": True} if usage.estimated else told


def _begin(ask: Ask, *, stream: bool) -> Question | None:
    told = {name: getattr(ask, field) for name, field in OPTIONS.items() if getattr(ask, field) is not None}
    told |= {"gen_ai.operation.name": "chat", "gen_ai.request.model": ask.model, "gen_ai.request.stream": stream}
    span = tracing.begin(f"chat {ask.model}", "client", told)
    return None if span is None else Question(span, ask)


def stream(ask: Ask, answer: Callable[[], AsyncGenerator[list[Delta], None]]) -> AsyncGenerator[list[Delta], None]:
    """`answer`, with a span where that is traced."""
    question = None if tracing.recorded() is None else _begin(ask, stream=True)
    return answer() if question is None else _streamed(question, answer())


async def _streamed(question: Question, pieces: AsyncGenerator[list[Delta], None]) -> AsyncGenerator[list[Delta], None]:
    failure: BaseException | None = None
    try:
        async with contextlib.aclosing(pieces):
            while True:
                with tracing.under(question.span):
                    deltas = await anext(pieces)
                question.hear(deltas)
                yield deltas
    except StopAsyncIteration:
        pass
    except BaseException as error:
        failure = error
        raise
    finally:
        question.end(failure)


async def complete(ask: Ask, answer: Callable[[], Awaitable[list[Delta]]]) -> list[Delta]:
    """The same for an answer that comes whole."""
    question = None if tracing.recorded() is None else _begin(ask, stream=False)
    if question is None:
        return await answer()
    failure: BaseException | None = None
    try:
        with tracing.under(question.span):
            deltas = await answer()
        question.hear(deltas)
    except BaseException as error:
        failure = error
        raise
    finally:
        question.end(failure)
    return deltas
