"""Running a response again, under its id, whose process died before anything was produced.

In the background, or because its client asked once more with the same Idempotency-Key
(docs/adr/0008-running-again.md).
"""

import logging
from typing import Any

import orjson

from api import errors, metrics
from api.connections import Connections
from api.errors import ApiError
from api.history.changes import HotConversation
from api.history.orphans import Orphan
from api.reading import hot_conversation
from api.schemas.edge import parse
from api.schemas.responses import CreateResponse
from api.turn.asking import Question
from api.turn.run import run_stored
from api.turn.running import Turn

log = logging.getLogger(__name__)
Json = dict[str, Any]

# A request that has ended so many processes will end the next one too.
MOST_TAKEUPS = 3


def body_to_repeat(request: CreateResponse) -> bytes:
    """What it takes to ask again, beside the input, which is kept as items anyway."""
    # Some fields were checked by hand, which pydantic would warn of, on standard error and with their content.
    body: Json = request.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"input"}, warnings=False)
    return orjson.dumps({**body, "input": ""})


async def take_up(
    connections: Connections, tenant: str, response: str, token: str, orphan: Orphan, events: list[Json], sequence: int
) -> bool:
    """Run an orphan again whose lock is held with `token`; False when it must be closed instead.

    `events` are those that its log has, `sequence` is the number of the next one. Raises ApiError 503.
    """
    kept: Json = orjson.loads(orphan.request)
    again = orphan.again or (orjson.dumps(kept["again"]) if "again" in kept else b"")
    told = frozenset(str(event["type"]).encode() for event in events)
    if not again or orphan.cancelled or orphan.takeups > MOST_TAKEUPS or b"response.output_item.added" in told:
        return False
    hot = await hot_conversation(connections, tenant, orphan.thread, items=True)
    if hot == "away":
        raise errors.store_unavailable("Redis can't be reached")
    try:
        request = parse(CreateResponse, again)
    except ApiError:
        return False  # another version took it on
    if not isinstance(hot, HotConversation):
        return False
    past = [orjson.loads(item) for _, item in hot.items]
    turn = Turn(tenant, response, orphan.thread, token, streamed=kept["stream"], first_sequence=sequence)
    turn.repeatable = True
    question = Question(request, kept["response"], past, kept["input"])
    turn.task = connections.tasks.create_task(run_stored(connections, turn, question, None, told))
    metrics.TAKEUPS.inc()
    log.warning(
        "response of a dead process taken up",
        extra={"response": response, "tenant": tenant, "takeups": orphan.takeups},
    )
    return True
