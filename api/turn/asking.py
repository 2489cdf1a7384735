"""From a request and its history to the question for the upstream."""

from dataclasses import dataclass
from typing import Any

import orjson

from api import errors, store
from api.connections import Connections
from api.history.changes import HotConversation
from api.ids import new_id
from api.rates import Allowance
from api.reading import hot_conversation
from api.reading import item_id as known_id
from api.schemas.responses import CompactHistory, CreateResponse
from api.turn.memory import context_of, with_memory
from api.upstream.estimate import estimated_tokens
from api.upstream.exchange import Ask
from core.store import UNREACHABLE

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What the client asked, the response as it stands at the start, the history, and the new items."""

    request: CreateResponse
    start: Json
    past: list[Json]
    inputs: list[Json]


def expected_tokens(allowance: Allowance, request: CreateResponse | CompactHistory, inputs: list[Json]) -> int:
    """What is counted before the answer: the new input. The history and the output follow at the turn's end."""
    return estimated_tokens([request.instructions, *inputs]) if allowance.limits.tokens else 0


def make_ask(request: CreateResponse, model: str, items: list[Json]) -> Ask:
    context = context_of(items)
    return Ask(
        model=model,
        items=context.items,
        instructions=with_memory(request.instructions, context.summary),
        tools=request.echoed_tools or None,
        tool_choice=request.echoed_tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        max_output_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        text_format=request.text_format,
        verbosity=request.verbosity,
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        reasoning_summary=request.reasoning.summary if request.reasoning else None,
        encrypted_reasoning="reasoning.encrypted_content" in (request.include or ()),
        prompt_cache_key=request.prompt_cache_key,
        safety_identifier=request.safety_identifier,
        top_logprobs=request.wanted_logprobs,
        further=request.further,
    )


async def resolve_references(
    connections: Connections, tenant: str, past: list[Json], inputs: list[Json]
) -> tuple[list[Json], list[Json]]:
    """Put items in the place of references to them: (everything to ask with, what is new to the conversation).

    What the history has already is not added twice; an item from elsewhere comes in as a copy with an id of its own.
    Raises ApiError 404 or 503.
    """
    known = {item["id"]: item for item in past} if any(item["type"] == "item_reference" for item in inputs) else {}
    new = []
    for index, item in enumerate(inputs):
        if item["type"] != "item_reference":
            new.append(item)
        elif item["id"] not in known:
            named = await _stored(connections, tenant, item["id"])
            if named is None:
                raise errors.not_found("item", item["id"], f"input[{index}].id")
            new.append({**named, "id": new_id(named["id"].partition("_")[0] + "_")})
    return past + new, new


async def _stored(connections: Connections, tenant: str, item_id: str) -> Json | None:
    """An item of any conversation, unless it has been deleted and PostgreSQL does not know yet."""
    try:
        found = await store.item_by_id(connections.store, tenant, item_id)
    except UNREACHABLE as error:
        raise errors.store_unavailable("the item is not in memory and PostgreSQL can't be reached") from error
    if found is None:
        return None
    item: Json = orjson.loads(found.item)
    hot = await hot_conversation(connections, tenant, found.conversation, items=True)
    if isinstance(hot, HotConversation):
        return item if any(known_id(body) == item_id for _, body in hot.items) else None
    return None if hot == "gone" else item
