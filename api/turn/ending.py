"""What a turn leaves behind: the entries of the queue and the body for readers."""

from typing import Any

import orjson

from api.history.steps import Ending
from api.upstream.estimate import estimated_tokens
from core import tracing
from core.entry import item_tail, response_tail

Json = dict[str, Any]


def make_ending(
    response: str, final: Json, inputs: list[Json], output: list[Json], body: bytes, log: bytes, last_sequence: int
) -> Ending:
    """Input and output become items of the conversation; if nothing was produced, the response keeps its input.

    `final` is the response without output, `body` with it; every item has an id.
    """
    if not output:
        kept = orjson.dumps(inputs)
        body_kept = orjson.dumps({**final, "input": orjson.Fragment(kept)})
        entry = response_tail(response, 0, 0, body_kept, tracing.carried())
        return Ending(final["status"], body, entry, [], log, last_sequence, len(inputs), kept, used_tokens(final, []))
    used = used_tokens(final, [*inputs, *output])
    items = [item_tail(item["id"], response, orjson.dumps(item)) for item in (*inputs, *output)]
    entry = response_tail(response, len(inputs), len(output), orjson.dumps(final), tracing.carried())
    return Ending(final["status"], body, entry, items, log, last_sequence, len(inputs), b"", used)


def used_tokens(final: Json, said: list[Json]) -> int | None:
    """What a turn cost. Where it was cut off before the provider told, what was said counts; None: nothing is known."""
    usage: Json | None = final["usage"]
    if usage is not None:
        return int(usage["total_tokens"])
    return estimated_tokens(said) if said else None
