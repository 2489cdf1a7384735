"""Every endpoint, in the order in which a reader wants them."""

from api.openapi import chat, contexts, conversations, websocket
from api.openapi.conversations import HELLO
from api.openapi.failures import ASKING, answers
from api.openapi.notation import TEXT, Json, ref
from api.openapi.operations import (
    IDEMPOTENCY_KEY,
    ITS_ID,
    PAGING,
    RESUMING,
    counted,
    json_answer,
    json_body,
    json_or_events,
    linked,
    open_operation,
    operation,
    parameter,
    path_id,
)

RESPONSES, MODELS, PROCESS, PAGES = "Responses", "Models", "Process", "Pages"
TAGS: list[Json] = [
    {"name": RESPONSES, "description": "A turn: input and history go to the model, the answer comes back and is kept."},
    {"name": conversations.TAG, "description": "What was said, item by item."},
    {"name": chat.TAG, "description": "The same turn in the older shapes."},
    {"name": MODELS, "description": "What the upstream offers."},
    {"name": PROCESS, "description": "For whoever runs the service. `GET /metrics` is on a port of its own."},
    {"name": PAGES, "description": "For people with a browser."},
]

RESPONSE_ID = path_id("response_id", "resp_")
OF_RESPONSE = ("get_response", "list_input_items", "cancel_response", "delete_response")

WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CREATE_EXAMPLES: dict[str, Json] = {
    "a question": {"input": "Hello!"},
    "streamed": {"input": "Hello!", "stream": True},
    "not stored": {"input": [HELLO], "store": False, "instructions": "Be brief."},
    "with a function": {"input": "How is the weather in Oslo?", "tools": [WEATHER], "tool_choice": "auto"},
}
CREATE_ABOUT = (
    "A turn that produced nothing is an HTTP error here; streamed, it ends with `response.failed`.\n\n"
    "The same path takes WebSocket connections: each text frame of a client is this body with `type` "
    "`response.create`, without `stream` and `background`; each text frame of the service is one event of a stream, "
    'or, when something was wrong, `{"type": "error", "status": 400, "error": {...}}` with the error of an HTTP answer.'
)

RESPONSE_PATHS: dict[str, Json] = {
    "/v1/responses": {
        "post": {
            "x-websocket": websocket.FRAMES,
            **operation(
                RESPONSES,
                "create_response",
                "Ask the model",
                linked(counted(json_or_events("Response")), *OF_RESPONSE, response_id=ITS_ID),
                body=json_body("CreateResponse", CREATE_EXAMPLES),
                parameters=[IDEMPOTENCY_KEY],
                errors=(404, 409, *ASKING),
                description=CREATE_ABOUT,
            ),
        },
    },
    **contexts.PATHS,
    "/v1/responses/{response_id}": {
        "get": operation(
            RESPONSES,
            "get_response",
            "Read a response, or resume its stream",
            json_or_events("Response"),
            parameters=[RESPONSE_ID, *RESUMING],
            errors=(400, 404),
            description="Events are there while the response runs and for an hour after, from any process.",
        ),
        "delete": operation(
            RESPONSES,
            "delete_response",
            "Delete a response",
            json_answer("ResponseDeleted"),
            parameters=[RESPONSE_ID],
            errors=(404, 409),
            description="Its items stay in a conversation; those of a response without one go along.",
        ),
    },
    "/v1/responses/{response_id}/cancel": {
        "post": operation(
            RESPONSES,
            "cancel_response",
            "Stop a running response",
            json_answer("Response", "The ended response; what it had said is kept."),
            parameters=[RESPONSE_ID],
            errors=(404,),
        ),
    },
    "/v1/responses/{response_id}/input_items": {
        "get": operation(
            RESPONSES,
            "list_input_items",
            "List what a response was asked",
            json_answer("ConversationItemList"),
            parameters=[RESPONSE_ID, *PAGING],
            errors=(400, 404),
        ),
    },
}
MODEL_PATHS: dict[str, Json] = {
    "/v1/models": {
        "get": operation(MODELS, "list_models", "List the models", json_answer("ModelList"), errors=ASKING),
    },
    "/v1/models/{model}": {
        "get": operation(
            MODELS,
            "get_model",
            "Read a model",
            json_answer("Model"),
            parameters=[parameter("path", "model", "Its id; may have slashes.", TEXT)],
            errors=(404, *ASKING),
        ),
    },
}
READY = open_operation(PROCESS, "readyz", "Does it take requests?", "application/json", ref("Readiness"))
PAGE_FILE = open_operation(PAGES, "page_file", "A page's script or style", "text/css", TEXT)
PAGE_FILE["responses"]["200"]["content"]["text/javascript"] = {"schema": TEXT}
OPEN_PATHS: dict[str, Json] = {
    "/livez": {"get": open_operation(PROCESS, "livez", "Is it alive?", "application/json", ref("Alive"))},
    "/readyz": {
        "get": {
            **READY,
            "responses": {**READY["responses"], "503": json_answer("Readiness", "It drains; send requests elsewhere.")},
        },
    },
    "/openapi.json": {
        "get": open_operation(PAGES, "openapi", "This document", "application/json", {"type": "object"}),
    },
    "/": {"get": open_operation(PAGES, "playground", "A chat for trying it", "text/html", TEXT)},
    "/docs": {"get": open_operation(PAGES, "docs", "This document for reading", "text/html", TEXT)},
    "/pages/{file}": {
        "get": {
            **PAGE_FILE,
            "parameters": [parameter("path", "file", "A script or a style of one of the pages.", TEXT)],
            "responses": {**PAGE_FILE["responses"], **answers(404)},
        },
    },
}
PATHS = {**RESPONSE_PATHS, **conversations.PATHS, **chat.PATHS, **MODEL_PATHS, **OPEN_PATHS}
