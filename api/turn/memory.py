"""The compaction item: a summary that stands for everything before it in what the model is asked later.

The items that it stands for stay where they are; only questions leave them out (docs/adr/0012-compaction.md).
"""

import base64
from typing import Any, NamedTuple

import orjson

from api.ids import new_id
from api.turn.turns import without

Json = dict[str, Any]

# Before the content of our items; what another service made has none of it.
MARK = "chatbot1."
TOLD = "What follows is a summary of this conversation so far, for you to go on from.\n\n"


class Context(NamedTuple):
    """What the model is asked with: the last summary, and the items that it does not stand for. Instructions, whatever
    their place, are among these: a model's own words for them would not do."""

    summary: str
    items: list[Json]


def context_of(items: list[Json]) -> Context:
    """A compaction item that is not ours stays where it is: another service may know it."""
    kinds = [item["type"] for item in items]
    if "compaction" not in kinds:
        return Context("", items)
    for index in range(len(items) - 1, -1, -1):
        read = kinds[index] == "compaction" and _read(items[index]["encrypted_content"])
        if read:
            summary, kept = read
            before = [item for item in items[:index] if item["type"] != "compaction"]
            return Context(summary, _with_calls(without(before, max(0, len(before) - kept))) + items[index + 1 :])
    return Context("", items)


def with_memory(instructions: str | None, summary: str) -> str | None:
    """One system message at the very beginning is what every model's template has a place for."""
    return "\n\n".join(filter(None, (instructions, TOLD + summary))) if summary else instructions


def compaction_item(summary: str, kept: int) -> Json:
    """`kept`: so many items directly before it still stand for themselves."""
    content = base64.urlsafe_b64encode(orjson.dumps({"summary": summary, "kept": kept})).decode()
    return {"id": new_id("cmp_"), "type": "compaction", "encrypted_content": MARK + content}


def _with_calls(items: list[Json]) -> list[Json]:
    """Without outputs whose call is not there, for it was deleted: no provider takes them."""
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    return [item for item in items if item["type"] != "function_call_output" or item["call_id"] in calls]


def _read(content: str) -> tuple[str, int] | None:
    """Maybe of the client's own making: who can write this can as well write `instructions`."""
    if not content.startswith(MARK):
        return None
    try:
        match orjson.loads(base64.urlsafe_b64decode(content.removeprefix(MARK))):
            case {"summary": str(summary), "kept": int(kept)} if kept >= 0:
                return summary, kept
    except ValueError:
        pass
    return None
