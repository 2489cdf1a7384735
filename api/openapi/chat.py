"""Chat completions: the endpoint, and what it answers."""

from api.openapi.failures import ASKING
from api.openapi.notation import (
    ANY_OBJECT,
    NOTHING,
    SECONDS,
    TEXT,
    WHOLE,
    Json,
    always,
    array,
    either,
    one_of,
    or_null,
    record,
    ref,
    told,
)
from api.openapi.operations import IDEMPOTENCY_KEY, counted, json_body, json_or_events, operation

TAG = "Chat completions"
HELLO: Json = {"role": "user", "content": "Hello!"}
EXAMPLES: dict[str, Json] = {
    "a question": {"messages": [{"role": "system", "content": "Be brief."}, HELLO]},
    "streamed": {"messages": [HELLO], "stream": True, "stream_options": {"include_usage": True}},
    "a turn of a conversation": {"messages": [HELLO], "store": True, "metadata": {"conversation": "conv_0123"}},
}
PATHS: dict[str, Json] = {
    "/v1/chat/completions": {
        "post": operation(
            TAG,
            "create_chat_completion",
            "Ask the model in messages",
            counted(json_or_events("ChatCompletion", "ChatCompletionStreamEvent")),
            body=json_body("CreateChatCompletion", EXAMPLES),
            parameters=[IDEMPOTENCY_KEY],
            errors=(404, 409, *ASKING),
            description="Stateless; with `store` and `metadata.conversation` a turn of that conversation.",
        ),
    },
}

REASON = one_of("stop", "length", "tool_calls", "content_filter")
FUNCTION = record("The function and what it is called with.", {"name": TEXT, "arguments": TEXT})
HEAD: dict[str, Json] = {
    "id": told(TEXT, "`chatcmpl-X`; the response of a stored one is `resp_X`."),
    "created": SECONDS,
    "model": TEXT,
    "system_fingerprint": NOTHING,
}
SHAPES: dict[str, Json] = {
    "ChatToolCall": record(
        "The model wants a function to be called.",
        {"id": TEXT, "type": always("function"), "function": FUNCTION},
    ),
    "ChatAnswer": record(
        "What the model said.",
        {
            "role": always("assistant"),
            "content": or_null(TEXT),
            "refusal": or_null(TEXT),
            "annotations": array(ANY_OBJECT),
        },
        {"tool_calls": array(ref("ChatToolCall"))},
    ),
    "ChatUsage": record(
        "Tokens, as the provider counted them.",
        {
            "prompt_tokens": WHOLE,
            "completion_tokens": WHOLE,
            "total_tokens": WHOLE,
            "prompt_tokens_details": record("Of these:", {"cached_tokens": WHOLE, "cache_write_tokens": WHOLE}),
            "completion_tokens_details": record("Of these:", {"reasoning_tokens": WHOLE}),
        },
        {"estimated": told(always(value=True), "The provider gave no count; this is an estimate.")},
    ),
    "ChatCompletion": record(
        "A whole answer.",
        {
            **HEAD,
            "object": always("chat.completion"),
            "choices": array(
                record(
                    "The one answer.",
                    {
                        "index": WHOLE,
                        "message": ref("ChatAnswer"),
                        "logprobs": NOTHING,
                        "finish_reason": REASON,
                    },
                )
            ),
            "usage": ref("ChatUsage"),
        },
    ),
    "ChatDelta": record(
        "A piece of the answer.",
        {},
        {
            "role": always("assistant"),
            "content": or_null(TEXT),
            "refusal": or_null(TEXT),
            "tool_calls": array(
                record(
                    "A piece of a call; its first one has the id and the name.",
                    {"index": WHOLE, "function": record("Pieces.", {"arguments": TEXT}, {"name": TEXT})},
                    {"id": TEXT, "type": always("function")},
                )
            ),
        },
    ),
    "ChatCompletionChunk": record(
        "The next piece of a streamed answer. Only the last one of the choice has a `finish_reason`.",
        {
            **HEAD,
            "object": always("chat.completion.chunk"),
            "choices": told(
                array(
                    record(
                        "The one answer.",
                        {
                            "index": WHOLE,
                            "delta": ref("ChatDelta"),
                            "logprobs": NOTHING,
                            "finish_reason": or_null(REASON),
                        },
                    )
                ),
                "Empty in the chunk that brings the usage.",
            ),
        },
        {"usage": told(or_null(ref("ChatUsage")), "Only with `stream_options.include_usage`; null but in the last.")},
    ),
    "ChatCompletionStreamEvent": told(
        either(ref("ChatCompletionChunk"), ref("Error")),
        "What follows `data:`. An error comes last, of what failed after the answer had begun.",
    ),
}
