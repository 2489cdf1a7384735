"""`truncation: "auto"`: the oldest whole turns stay out of what the model is asked until the rest fits its context.

Where the context's size is configured, the question is made to fit before it is sent. The provider has the last word in
any case: what it finds too long is shortened and sent again, which is exact whatever the model's tokens are.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from api.turn.answer import Answer
from api.turn.turns import cuts, stands, without
from api.upstream.estimate import estimated_input_tokens, estimated_tokens
from api.upstream.exchange import Ask, Count, UpstreamError
from api.upstream.routing import Routing

# The answer needs room too where the client did not say how much: this share of the context, but not without end.
ANSWER_SHARE = 1 / 8
MOST_ANSWER_TOKENS = 4096
# An estimate is taken for too low by this much.
DOUBT = 1.25
# Below half of what fits not even a bad estimate is over it, and nobody needs to count.
FAR_BELOW = 0.5
# Rounds of counting, and questions in all; each takes away a turn at least, and the last one all that may go.
MOST_COUNTS = 4
MOST_QUESTIONS = 8
# What providers tell of a question that is too long: its tokens and the context's, in either order.
NUMBER = re.compile(r"(?<![\w.-])\d{2,9}(?![\w-])")
# Where they tell nothing.
BLIND_SHARE = 0.5

Relay = Callable[[Ask], Awaitable[None]]


async def relay_fitting(upstream: Routing, ask: Ask, newest: int, answer: Answer, relay: Relay) -> None:
    """`relay` the question without its oldest turns, as many as must go; never the `newest` items.

    Raises UpstreamError 400 when these alone don't fit, and whatever else `relay` raises.
    """
    ask = await _fitted(upstream, ask, newest)
    told = len(answer.items)
    for question in range(1, MOST_QUESTIONS + 1):
        try:
            await relay(ask)
        except UpstreamError as error:
            share = 0.0 if question >= MOST_QUESTIONS - 1 else _share_told(error.message)
            too_long = error.code == "context_length_exceeded" and len(answer.items) == told
            shorter = _shortened(ask, newest, share) if too_long else None
            if shorter is None:
                raise
            ask = shorter
        else:
            return


async def _fitted(upstream: Routing, ask: Ask, newest: int) -> Ask:
    """As much of the question as a configured context holds."""
    route = upstream.route(ask.model)
    context = route.context_tokens
    if context is None:
        return ask
    answer = ask.max_output_tokens or route.max_output_tokens or min(context * ANSWER_SHARE, MOST_ANSWER_TOKENS)
    room = max(context - answer, 1)
    for _ in range(MOST_COUNTS):
        if estimated_input_tokens(ask) <= room * FAR_BELOW:
            return ask
        count = await upstream.count(ask)
        tokens = count.input_tokens * (DOUBT if count.estimated else 1)
        if tokens <= room:
            return ask
        shorter = _shortened(ask, newest, room / tokens)
        if shorter is None:
            _refuse_hopeless(count, context)
            return ask
        ask = shorter
    return ask


def _refuse_hopeless(count: Count, context: int) -> None:
    """Some servers cut what is too long themselves and tell nobody, so the question is not sent to find out."""
    if count.input_tokens > context:
        about = "about " if count.estimated else ""
        message = (
            f"The input has {about}{count.input_tokens} tokens without any earlier turn; "
            f"the model's context holds {context}. Send less."
        )
        raise UpstreamError(400, "context_length_exceeded", message, param="input")


def _share_told(message: str) -> float:
    """How much of the question fits, by the first two different numbers of the provider's message."""
    numbers = list(dict.fromkeys(int(text) for text in NUMBER.findall(message)))[:2]
    if len(numbers) < 2 or not min(numbers):
        return BLIND_SHARE
    return min(numbers) / max(numbers) * (1 - ANSWER_SHARE)


def _shortened(ask: Ask, newest: int, share: float) -> Ask | None:
    """The question without its oldest turns, at most `share` of it if that can be; None when no turn may go."""
    sizes = [0 if stands(item) else estimated_tokens([item]) for item in ask.items]
    left = estimated_input_tokens(ask)
    target, done, shorter = left * share, 0, 0
    for cut in cuts(ask.items, newest):
        left -= sum(sizes[done:cut])
        done = shorter = cut
        if left <= target:
            break
    return replace(ask, items=without(ask.items, shorter)) if shorter else None
