"""The frames of WebSocket /v1/responses. OpenAPI knows none, so the POST of the path tells of them as an extension."""

from api.openapi.failures import ERROR
from api.openapi.notation import TEXT, WHOLE, Json, always, either, record, ref

ERROR_FIELDS: dict[str, Json] = ERROR["properties"]["error"]["properties"]
SHAPES: dict[str, Json] = {
    "WebSocketErrorEvent": record(
        "Something was wrong with a frame or its turn; the connection stays.",
        {
            "type": always("error"),
            "status": WHOLE,
            "error": record(
                "As in Error.",
                ERROR_FIELDS,
                {"headers": {"type": "object", "description": "As of an HTTP answer.", "additionalProperties": TEXT}},
            ),
        },
    ),
}
FRAMES: Json = {
    "description": "Each text frame is one JSON object.",
    "client": ref("ResponseCreateEvent"),
    "server": either(ref("ResponseStreamEvent"), ref("WebSocketErrorEvent")),
}
