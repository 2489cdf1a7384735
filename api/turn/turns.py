"""A history as turns: where it may be cut without tearing apart what belongs together."""

from typing import Any

Json = dict[str, Any]
ASKING = frozenset({"user", "system", "developer"})
STANDING = frozenset({"system", "developer"})


def starts(items: list[Json]) -> list[int]:
    """Where the turns begin: with a message to the assistant after something else.

    A function's output is in the turn of its call, however late it came.
    """
    begun: list[int] = []
    calls: dict[str, int] = {}
    asked = False
    for index, item in enumerate(items):
        if item["type"] == "function_call":
            calls[item["call_id"]] = index
        elif item["type"] == "function_call_output":
            called = calls.get(item["call_id"], index)
            while begun and begun[-1] > called:
                begun.pop()
        asking = item["type"] == "message" and item["role"] in ASKING
        if asking and not asked:
            begun.append(index)
        asked = asking
    return begun


def cuts(items: list[Json], newest: int) -> list[int]:
    """Where the items may be cut so that the `newest` of them, and the whole of their turn, stay."""
    last = len(items) - newest
    return [start for start in starts(items) if 0 < start <= last]


def last_cut(items: list[Json], newest: int) -> int:
    """Where only the last turn is left, or, where that is all there is, its last step: a call with its output, and what
    came with them. 0: it can't be cut."""
    if between_turns := cuts(items, newest):
        return between_turns[-1]
    last = len(items) - newest
    called = {item["call_id"]: index for index, item in enumerate(items) if item["type"] == "function_call"}
    for item in items[last:]:
        if item["type"] == "function_call_output":
            last = min(last, called.get(item["call_id"], last))
    while last and items[last - 1]["type"] in ("function_call", "reasoning"):
        last -= 1
    return last


def stands(item: Json) -> bool:
    """Whether it is an instruction: that does not end with its turn."""
    return item["type"] == "message" and item["role"] in STANDING


def without(items: list[Json], cut: int) -> list[Json]:
    """The items from `cut` on, and the instructions before it."""
    return [*filter(stands, items[:cut]), *items[cut:]]
