"""A model's context: what a question costs of it, and a history made short for it."""

from api.openapi.failures import ASKING
from api.openapi.notation import SECONDS, TEXT, WHOLE, Json, always, array, record, ref, told
from api.openapi.operations import json_answer, json_body, operation

SHAPES: dict[str, Json] = {
    "InputTokens": record(
        "What a question would cost.",
        {"object": always("response.input_tokens"), "input_tokens": WHOLE},
        {"estimated": told(always(value=True), "Nobody can count for this model; this is an estimate.")},
    ),
    "Compaction": record(
        "A history made short; `output` is good input.",
        {
            "id": TEXT,
            "object": always("response.compaction"),
            "created_at": SECONDS,
            "output": told(array(ref("ConversationItem")), "The user's messages and a compaction item."),
            "usage": ref("Usage"),
        },
    ),
}

PATHS: dict[str, Json] = {
    "/v1/responses/input_tokens": {
        "post": operation(
            "Responses",
            "count_input_tokens",
            "Count what a create with this body would ask",
            json_answer("InputTokens"),
            body=json_body("CreateResponse", {"a question": {"input": "Hello!"}}),
            errors=(404, 409),
            description="History, instructions and tools are counted too. Nothing is kept.",
        ),
    },
    "/v1/responses/compact": {
        "post": operation(
            "Responses",
            "compact_responses",
            "Make a history short",
            json_answer("Compaction"),
            body=json_body("CompactHistory", {"a response's history": {"previous_response_id": "resp_1"}}),
            errors=(404, 409, *ASKING),
            description="The model writes a summary of it. Nothing is kept.",
        ),
    },
}
