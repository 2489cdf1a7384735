"""The catalogue of error codes: what each means, and the HTTP status that it comes with."""

from api.openapi.notation import TEXT, Json, one_of, or_null, record, ref, told

CODES: dict[int, dict[str, str]] = {
    400: {
        "invalid_json": "The body is not JSON in UTF-8.",
        "invalid_type": "A field has another JSON type than it must have.",
        "invalid_value": "A field has a value that is not allowed, or text that can't be stored.",
        "missing_required_parameter": "A field is missing.",
        "unknown_parameter": "A field that this service does not know.",
        "mutually_exclusive_parameters": "Two fields exclude each other.",
        "string_above_max_length": "A text is too long.",
        "string_below_min_length": "A text is too short.",
        "array_above_max_length": "A list has too many entries.",
        "array_below_min_length": "A list has too few entries.",
        "object_above_max_properties": "An object has too many fields.",
        "integer_above_max_value": "A number is too large.",
        "integer_below_min_value": "A number is too small.",
        "decimal_above_max_value": "A number is too large.",
        "decimal_below_min_value": "A number is too small.",
        "unsupported_content_type": "The body is not said to be JSON.",
        "previous_response_failed": "The response to continue has failed without any output.",
        "previous_response_not_found": "Over a WebSocket: no such response, or no longer in this connection's memory.",
        "websocket_connection_limit_reached": "Over a WebSocket: the connection's time is over; open a new one.",
        "context_length_exceeded": "The input is too long for the model.",
        "unsupported_parameter": "The model's provider has no word for such a parameter.",
        "unsupported_content": "The model can't take such content.",
        "upstream_rejected": "The model provider refused the request.",
        "client_left": "The connection ended before the body was whole.",
    },
    401: {"invalid_api_key": "The API key is missing or wrong."},
    403: {
        "insufficient_scope": "The API key lacks the scope that the request needs.",
        "foreign_origin": "Another site's page opens a WebSocket where no key is asked for.",
    },
    404: {
        "response_not_found": "No such response; it may have been deleted.",
        "conversation_not_found": "No such conversation; it may have been deleted.",
        "item_not_found": "No such item; it may have been deleted.",
        "model_not_found": "No upstream answers for a model of this name.",
        "unknown_url": "There is no such endpoint.",
    },
    405: {"method_not_allowed": "The endpoint does not take this method."},
    409: {
        "conversation_locked": "The conversation has a running response; the message names it.",
        "response_running": "The response is still running.",
        "idempotency_key_reused": "The Idempotency-Key was used for another request.",
    },
    413: {"request_too_large": "The body is larger than the limit, 10 MiB unless the operator said otherwise."},
    429: {"rate_limit_exceeded": "A rate limit is reached; Retry-After tells when to come back."},
    500: {"server_error": "A mistake in this service."},
    502: {
        "upstream_error": "The model provider failed or can't be reached.",
        "upstream_auth": "The model provider refused this service's credentials.",
        "upstream_cut": "The model provider's answer was cut off.",
        "tool_not_allowed": "The model called a function that tool_choice does not allow.",
    },
    503: {
        "queue_full": "Too much is waiting to be stored.",
        "store_unavailable": "Redis or PostgreSQL can't be reached.",
        "upstream_unavailable": "The model provider failed too often and is left alone for a moment.",
        "upstream_busy": "As many requests as the model provider may have are running.",
        "outcome_unknown": "The answer could not be stored in time; GET tells how it ended.",
        "response_interrupted": "A chat completion was cancelled, or cut off by the end of its process.",
    },
    504: {"upstream_timeout": "The model provider took too long."},
}
NAMES = {
    400: ("BadRequest", "Something about the request is wrong; `param` tells what."),
    401: ("Unauthorized", "The key is missing or wrong."),
    403: ("Forbidden", "The key is not for this."),
    404: ("NotFound", "There is no such thing, or it is another tenant's."),
    405: ("MethodNotAllowed", "Not with this method."),
    409: ("Conflict", "Something else is going on."),
    413: ("TooLarge", "The body is too large."),
    429: ("RateLimited", "Too much at once."),
    500: ("ServerError", "A mistake of ours."),
    502: ("UpstreamFailed", "The model provider failed."),
    503: ("Unavailable", "Not now; try again after Retry-After seconds."),
    504: ("UpstreamTimeout", "The model provider took too long."),
}

# The model provider's failures, as seen by a client.
ASKING = (429, 502, 504)

REQUEST_ID: Json = {"description": "Names this request in the service's log.", "required": True, "schema": TEXT}
RETRY_AFTER: Json = {
    "description": "Seconds to wait before the next try.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
CHALLENGE: Json = {"description": "`Bearer`", "required": True, "schema": TEXT}
RATE: Json = {"description": "Only of a tenant with such a limit, per minute.", "required": False, "schema": TEXT}
ALLOW: Json = {"description": "The methods that the path takes.", "required": True, "schema": TEXT}
HEADERS = {"Allow": ALLOW, "RequestId": REQUEST_ID, "RetryAfter": RETRY_AFTER, "Challenge": CHALLENGE, "Rate": RATE}
RATES: Json = {
    f"x-ratelimit-{told}-{kind}": {"$ref": "#/components/headers/Rate"}
    for kind in ("requests", "tokens")
    for told in ("limit", "remaining", "reset")
}
WITH_ID: Json = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
MORE_HEADERS: dict[int, Json] = {
    401: {"www-authenticate": {"$ref": "#/components/headers/Challenge"}},
    405: {"allow": {"$ref": "#/components/headers/Allow"}},
    429: {"retry-after": {"$ref": "#/components/headers/RetryAfter"}, **RATES},
    503: {"retry-after": {"$ref": "#/components/headers/RetryAfter"}},
}

ERROR: Json = record(
    "What is told instead of an answer.",
    {
        "error": record(
            "What was wrong, where, and what to do.",
            {
                "message": TEXT,
                "type": one_of(
                    "invalid_request_error",
                    "requests",
                    "tokens",
                    "rate_limit_error",
                    "service_unavailable",
                    "upstream_error",
                    "server_error",
                ),
                "param": told(or_null(TEXT), "The field, header or parameter that is to blame: `input[0].content`."),
                "code": one_of(*(code for codes in CODES.values() for code in codes)),
            },
        )
    },
)
SHAPES = {"Error": ERROR}


def component(status: int) -> Json:
    """The answer of one status, with its codes."""
    codes = "\n".join(f"- `{code}`: {meaning}" for code, meaning in CODES[status].items())
    code, meaning = next(iter(CODES[status].items()))
    kinds = {429: "rate_limit_error", 500: "server_error", 502: "upstream_error", 503: "service_unavailable"}
    kind = kinds.get(status, "upstream_error" if status == 504 else "invalid_request_error")
    example = {"error": {"message": meaning, "type": kind, "param": None, "code": code}}
    return {
        "description": f"{NAMES[status][1]}\n\n{codes}",
        "headers": {**WITH_ID, **MORE_HEADERS.get(status, {})},
        "content": {"application/json": {"schema": ref("Error"), "example": example}},
    }


ANSWERS: dict[str, Json] = {name: component(status) for status, (name, _) in NAMES.items()}


def answers(*statuses: int) -> dict[str, Json]:
    return {str(status): {"$ref": f"#/components/responses/{NAMES[status][0]}"} for status in statuses}
