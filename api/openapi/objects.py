"""What the service answers: responses, items, conversations, lists."""

from api.openapi.notation import (
    ANY_OBJECT,
    SECONDS,
    TEXT,
    WHOLE,
    YES_OR_NO,
    Json,
    always,
    array,
    by_type,
    either,
    one_of,
    or_null,
    record,
    ref,
    told,
)


def _page(description: str, of: str) -> Json:
    fields = {
        "object": always("list"),
        "data": array(ref(of)),
        "first_id": or_null(TEXT),
        "last_id": told(or_null(TEXT), "What `after` of the next page must be."),
        "has_more": YES_OR_NO,
    }
    return record(description, fields)


STATUS = one_of("in_progress", "completed", "incomplete")
METADATA: Json = {"type": "object", "additionalProperties": TEXT, "maxProperties": 16}

PARTS: dict[str, Json] = {
    "InputTextPart": record("Text that was sent.", {"type": always("input_text"), "text": TEXT}),
    "InputImagePart": record(
        "An image that was sent.",
        {
            "type": always("input_image"),
            "image_url": told(TEXT, "A URL, or the image itself as a data: URL."),
            "detail": one_of("auto", "low", "high", "original"),
        },
    ),
    "InputFilePart": record(
        "A file that was sent.",
        {"type": always("input_file")},
        {"filename": TEXT, "file_data": told(TEXT, "The file as a data: URL."), "file_url": TEXT},
    ),
    "OutputTextPart": record(
        "Text of the model's.",
        {
            "type": always("output_text"),
            "text": TEXT,
            "annotations": array(ANY_OBJECT),
            "logprobs": told(
                array(ANY_OBJECT), "Of each token, where `include` asks for them and the provider tells them."
            ),
        },
    ),
    "RefusalOutputPart": record("Why the model refuses.", {"type": always("refusal"), "refusal": TEXT}),
    "ReasoningTextPart": record("What the model thought.", {"type": always("reasoning_text"), "text": TEXT}),
    "SummaryTextPart": record("A summary of what the model thought.", {"type": always("summary_text"), "text": TEXT}),
    "InputPart": by_type(
        "A part of what was sent.",
        {"input_text": "InputTextPart", "input_image": "InputImagePart", "input_file": "InputFilePart"},
    ),
    "OutputPart": by_type(
        "A part of what the model said.",
        {"output_text": "OutputTextPart", "refusal": "RefusalOutputPart", "reasoning_text": "ReasoningTextPart"},
    ),
    "ContentPart": by_type(
        "A part of a message.",
        {
            "input_text": "InputTextPart",
            "input_image": "InputImagePart",
            "input_file": "InputFilePart",
            "output_text": "OutputTextPart",
            "refusal": "RefusalOutputPart",
        },
    ),
}

ITEMS: dict[str, Json] = {
    "MessageItem": record(
        "A message.",
        {
            "id": TEXT,
            "type": always("message"),
            "status": STATUS,
            "role": one_of("user", "assistant", "system", "developer"),
            "content": array(ref("ContentPart")),
        },
        {
            "phase": one_of("commentary", "final_answer"),
            "name": told(TEXT, "Who of several speaks; only a chat completion brings one."),
        },
    ),
    "FunctionCallItem": record(
        "The model wants a function to be called.",
        {
            "id": TEXT,
            "type": always("function_call"),
            "status": STATUS,
            "call_id": told(TEXT, "What the output of the call must name."),
            "name": TEXT,
            "arguments": told(TEXT, "JSON, as the model wrote it."),
        },
    ),
    "FunctionCallOutputItem": record(
        "What the called function gave.",
        {
            "id": TEXT,
            "type": always("function_call_output"),
            "status": STATUS,
            "call_id": TEXT,
            "output": either(TEXT, array(ref("InputPart"))),
        },
    ),
    "ReasoningItem": record(
        "What the model thought before it answered.",
        {"id": TEXT, "type": always("reasoning"), "summary": array(ref("SummaryTextPart"))},
        {"content": array(ref("ReasoningTextPart")), "encrypted_content": TEXT},
    ),
    "CompactionItem": record(
        "Stands for what came before it.", {"id": TEXT, "type": always("compaction"), "encrypted_content": TEXT}
    ),
    "UnknownItem": {
        **record("An item of a type that this service does not know: given back as it came.", {"id": TEXT}),
        "properties": {
            "id": TEXT,
            "type": {
                "type": "string",
                "not": {"enum": ["message", "function_call", "function_call_output", "reasoning", "compaction"]},
            },
        },
        "required": ["id", "type"],
        "additionalProperties": True,
    },
    "OutputItem": by_type(
        "What the model produced.",
        {
            "message": "MessageItem",
            "function_call": "FunctionCallItem",
            "reasoning": "ReasoningItem",
            "compaction": "CompactionItem",
        },
    ),
    "ConversationItem": told(
        either(
            ref("MessageItem"),
            ref("FunctionCallItem"),
            ref("FunctionCallOutputItem"),
            ref("ReasoningItem"),
            ref("CompactionItem"),
            ref("UnknownItem"),
        ),
        "An item of a conversation.",
    ),
    "ConversationItemList": _page("One page of items.", "ConversationItem"),
}

CONVERSATIONS: dict[str, Json] = {
    "Conversation": record(
        "A conversation; its items are a list of their own.",
        {"id": TEXT, "object": always("conversation"), "created_at": SECONDS, "metadata": METADATA},
    ),
    "ConversationList": _page("One page of conversations.", "Conversation"),
    "ExportedLine": told(either(ref("Conversation"), ref("ConversationItem")), "The first line is the conversation."),
    "ConversationDeleted": record(
        "The conversation and its items are gone.",
        {"id": TEXT, "object": always("conversation.deleted"), "deleted": always(value=True)},
    ),
}

FORMAT = either(
    record("Plain text.", {"type": always("text")}),
    record("A JSON object.", {"type": always("json_object")}),
    record(
        "JSON of a schema.",
        {
            "type": always("json_schema"),
            "name": TEXT,
            "description": or_null(TEXT),
            "schema": ANY_OBJECT,
            "strict": YES_OR_NO,
        },
    ),
)
CHOSEN = record("One function.", {"type": always("function"), "name": TEXT})
TOOL_CHOICE = either(
    one_of("none", "auto", "required"),
    CHOSEN,
    record(
        "Some of the functions.",
        {"type": always("allowed_tools"), "tools": array(CHOSEN), "mode": one_of("none", "auto", "required")},
    ),
)

OTHERS: dict[str, Json] = {
    "Usage": record(
        "Tokens, as the provider counted them.",
        {
            "input_tokens": WHOLE,
            "input_tokens_details": record("Of these:", {"cached_tokens": WHOLE, "cache_write_tokens": WHOLE}),
            "output_tokens": WHOLE,
            "output_tokens_details": record("Of these:", {"reasoning_tokens": WHOLE}),
            "total_tokens": WHOLE,
        },
        {"estimated": told(always(value=True), "The provider gave no count; this is an estimate.")},
    ),
    "Tool": record(
        "A function that the model may call.",
        {
            "type": always("function"),
            "name": TEXT,
            "description": or_null(TEXT),
            "parameters": or_null(ANY_OBJECT),
            "strict": or_null(YES_OR_NO),
        },
    ),
    "ResponseDeleted": record(
        "The response is gone.", {"id": TEXT, "object": always("response"), "deleted": always(value=True)}
    ),
    "Model": record(
        "A model that the upstream offers.",
        {
            "id": TEXT,
            "object": always("model"),
            "created": told(WHOLE, "0: providers tell no date that can be relied on."),
            "owned_by": TEXT,
        },
    ),
    "ModelList": record("All models.", {"object": always("list"), "data": array(ref("Model"))}),
    "Alive": record("The process answers.", {"status": always("ok")}),
    "Readiness": record(
        "Whether the process takes requests, and which stores it misses.",
        {
            "status": one_of("ok", "draining"),
            "missing": array(TEXT),
        },
    ),
}  # fmt: skip

SHAPES = {**PARTS, **ITEMS, **CONVERSATIONS, **OTHERS}
