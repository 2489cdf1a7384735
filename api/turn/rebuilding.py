"""The output of a response whose process is dead, out of the events that were logged of it."""

from typing import Any

Json = dict[str, Any]

# Which field of which part a delta event adds to: the item's list of parts, the event's index in it, the part's field.
GROWING = {
    "response.output_text.delta": ("content", "content_index", "text"),
    "response.reasoning.delta": ("content", "content_index", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal"),
}


def rebuild(events: list[Json]) -> list[Json]:
    """The output items that the events tell of; what was open is `incomplete`."""
    items: list[Json] = []
    for event in events:
        if event["type"] == "response.output_item.added":
            items.append(event["item"])
        elif "output_index" in event:
            items[event["output_index"]] = _grown(items[event["output_index"]], event)
    for item in items:
        if item.get("status") == "in_progress":
            item["status"] = "incomplete"
    return items


def _grown(item: Json, event: Json) -> Json:
    match event["type"]:
        case "response.output_item.done":
            return dict(event["item"])
        case "response.content_part.added":
            item["content"].append(event["part"])
        case "response.reasoning_summary_part.added":
            item["summary"].append(event["part"])
        case "response.output_text.annotation.added":
            item["content"][event["content_index"]]["annotations"].append(event["annotation"])
        case "response.function_call_arguments.delta":
            item["arguments"] += event["delta"]
        case kind if kind in GROWING:
            parts, index, field = GROWING[kind]
            part = item[parts][event[index]]
            part[field] += event["delta"]
            if event.get("logprobs"):
                part["logprobs"] += event["logprobs"]
    return item
