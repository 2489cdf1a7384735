"""The response object, and the events of its stream."""

from api.openapi.failures import ERROR
from api.openapi.notation import (
    NUMBER,
    SECONDS,
    TEXT,
    WHOLE,
    YES_OR_NO,
    Json,
    always,
    array,
    by_type,
    one_of,
    or_null,
    record,
    ref,
    told,
)
from api.openapi.objects import FORMAT, METADATA, TOOL_CHOICE

RESPONSE: Json = record(
    "A response. While it runs its `status` is `queued` or `in_progress` and its output empty.",
    {
        "id": TEXT,
        "object": always("response"),
        "created_at": SECONDS,
        "completed_at": or_null(SECONDS),
        "status": one_of("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
        "incomplete_details": or_null(
            record(
                "Why it is incomplete.",
                {
                    "reason": told(
                        one_of("max_output_tokens", "content_filter", "interrupted"),
                        "`interrupted`: the process that ran it has ended.",
                    )
                },
            )
        ),
        "error": or_null(
            record("Why it failed.", {"code": told(TEXT, "As in Error."), "message": TEXT}),
        ),
        "model": TEXT,
        "previous_response_id": or_null(TEXT),
        "conversation": or_null(record("Where it belongs.", {"id": TEXT})),
        "instructions": or_null(TEXT),
        "output": array(ref("OutputItem")),
        "tools": array(ref("Tool")),
        "tool_choice": TOOL_CHOICE,
        "truncation": one_of("disabled", "auto"),
        "parallel_tool_calls": YES_OR_NO,
        "text": record("How it answers.", {"format": FORMAT}, {"verbosity": one_of("low", "medium", "high")}),
        "top_p": NUMBER,
        "presence_penalty": NUMBER,
        "frequency_penalty": NUMBER,
        "top_logprobs": WHOLE,
        "temperature": NUMBER,
        "reasoning": or_null(record("How it thinks.", {"effort": or_null(TEXT), "summary": or_null(TEXT)})),
        "usage": or_null(ref("Usage")),
        "max_output_tokens": or_null(WHOLE),
        "max_tool_calls": or_null(WHOLE),
        "store": YES_OR_NO,
        "background": YES_OR_NO,
        "service_tier": TEXT,
        "metadata": METADATA,
        "safety_identifier": or_null(TEXT),
        "prompt_cache_key": or_null(TEXT),
    },
)

WHOLE_RESPONSE = {"response": ref("Response")}
IN_OUTPUT = {"output_index": WHOLE}
OF_ITEM = {"item_id": TEXT, **IN_OUTPUT}
IN_ITEM = {**OF_ITEM, "content_index": WHOLE}
ITEM = {**IN_OUTPUT, "item": ref("OutputItem")}
PART = {**IN_ITEM, "part": ref("OutputPart")}
IN_SUMMARY = {**OF_ITEM, "summary_index": WHOLE}
SUMMARY = {**IN_SUMMARY, "part": ref("SummaryTextPart")}
ANNOTATION = {"annotation_index": WHOLE, "annotation": {"type": "object", "additionalProperties": True}}
LOGPROBS = {"logprobs": array({"type": "object", "additionalProperties": True})}

# Beside `type` as OpenAI's SDKs have them, and once more as the specification does.
ERROR_FIELDS = {"code": TEXT, "message": TEXT, "param": or_null(TEXT), "error": ERROR["properties"]["error"]}

EVENTS: dict[str, tuple[str, dict[str, Json]]] = {
    "response.created": ("The first event: the response has its id.", WHOLE_RESPONSE),
    "response.queued": ("It runs in the background: its client may leave.", WHOLE_RESPONSE),
    "response.in_progress": ("The model is asked.", WHOLE_RESPONSE),
    "response.output_item.added": ("An item of the output begins.", ITEM),
    "response.content_part.added": ("A part of an item begins.", PART),
    "response.output_text.delta": ("More text.", {**IN_ITEM, "delta": TEXT, **LOGPROBS}),
    "response.output_text.done": ("The whole text of the part.", {**IN_ITEM, "text": TEXT, **LOGPROBS}),
    "response.output_text.annotation.added": ("The text cites a page.", {**IN_ITEM, **ANNOTATION}),
    "response.refusal.delta": ("More of a refusal.", {**IN_ITEM, "delta": TEXT}),
    "response.refusal.done": ("The whole refusal.", {**IN_ITEM, "refusal": TEXT}),
    "response.reasoning.delta": ("More of what the model thinks.", {**IN_ITEM, "delta": TEXT}),
    "response.reasoning.done": ("All that the model thought.", {**IN_ITEM, "text": TEXT}),
    "response.reasoning_summary_part.added": ("A part of a summary of what the model thought begins.", SUMMARY),
    "response.reasoning_summary_text.delta": ("More of the summary.", {**IN_SUMMARY, "delta": TEXT}),
    "response.reasoning_summary_text.done": ("The whole text of the part.", {**IN_SUMMARY, "text": TEXT}),
    "response.reasoning_summary_part.done": ("The whole part of the summary.", SUMMARY),
    "response.function_call_arguments.delta": ("More of a call's arguments.", {**OF_ITEM, "delta": TEXT}),
    "response.function_call_arguments.done": ("The whole arguments.", {**OF_ITEM, "arguments": TEXT}),
    "response.content_part.done": ("The whole part.", PART),
    "response.output_item.done": ("The whole item.", ITEM),
    "response.completed": ("The last event: everything is stored.", WHOLE_RESPONSE),
    "response.incomplete": (
        "The last event of one that stopped early: a limit, a filter, `cancel`, or a process that ended.",
        WHOLE_RESPONSE,
    ),
    "response.failed": ("The last event of one that failed; `response.error` tells why.", WHOLE_RESPONSE),
    "error": ("The last event when the conversation or the response was deleted meanwhile.", ERROR_FIELDS),
}


def component_of(event: str) -> str:
    """response.output_text.delta is described as ResponseOutputTextDeltaEvent."""
    return "".join(word.capitalize() for word in event.replace(".", "_").split("_")) + "Event"


SHAPES: dict[str, Json] = {
    "Response": RESPONSE,
    **{
        component_of(event): record(description, {"type": always(event), "sequence_number": WHOLE, **fields})
        for event, (description, fields) in EVENTS.items()
    },
    "ResponseStreamEvent": by_type(
        "One event of a stream. On the wire: `event: TYPE`, `data: JSON`, an empty line; the stream ends with "
        "`data: [DONE]`. A comment line every 15 seconds keeps the connection awake.",
        {event: component_of(event) for event in EVENTS},
    ),
}
