"""Every error that a client can get: OpenAI's envelope, one catalogue of codes, messages that say what to do."""

import math
from collections.abc import Iterable

import orjson

INVALID = "invalid_request_error"
LONGEST_SHOWN = 128
UNAVAILABLE_RETRY_SECONDS = "2"
QUEUE_FULL_RETRY_SECONDS = "5"


class ApiError(Exception):
    """What a client is told instead of an answer; `param` names the field that is to blame."""

    def __init__(
        self,
        status: int,
        error_type: str,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers or {}

    def body(self) -> bytes:
        return orjson.dumps(
            {"error": {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}}
        )


def invalid(code: str, message: str, param: str | None) -> ApiError:
    return ApiError(400, INVALID, code, message, param)


def not_found(kind: str, wanted: str, param: str) -> ApiError:
    """An id of nothing, of something deleted, or of another tenant's: nobody can tell which."""
    shown = wanted[:LONGEST_SHOWN]
    message = f"No {kind} with the id '{shown}' was found. Check the id; what was deleted can't be used again."
    return ApiError(404, INVALID, f"{kind}_not_found", message, param)


def unknown_cursor(after: str) -> ApiError:
    return invalid(
        "invalid_value", f"'{after}' is none of the listed items. Pass the last_id of the page before.", "after"
    )


def body_too_large(limit_bytes: int) -> ApiError:
    message = f"The body is larger than {limit_bytes} bytes. Send less, or pass images and files by URL."
    return ApiError(413, INVALID, "request_too_large", message)


def unsupported_content_type() -> ApiError:
    message = "The body must be JSON and say so. Send the header 'Content-Type: application/json'."
    return invalid("unsupported_content_type", message, None)


def conversation_locked(conversation: str, running: str) -> ApiError:
    message = (
        f"The conversation '{conversation}' has a running response, '{running}'. "
        "Wait until it has ended, or cancel it, and try again."
    )
    return ApiError(409, INVALID, "conversation_locked", message, "conversation")


def response_running(response: str) -> ApiError:
    message = f"The response '{response}' is still running. Wait until it has ended."
    return ApiError(409, INVALID, "response_running", message, "response_id")


def previous_response_running(previous: str) -> ApiError:
    message = f"The response '{previous}' is still running. Wait until it has ended before you continue it."
    return ApiError(409, INVALID, "response_running", message, "previous_response_id")


def previous_response_empty(previous: str) -> ApiError:
    message = f"The response '{previous}' failed without any output, so it can't be continued. Send its input again."
    return invalid("previous_response_failed", message, "previous_response_id")


def idempotency_key_reused() -> ApiError:
    message = "This Idempotency-Key was used for another request. Use a new key for a new request."
    return ApiError(409, INVALID, "idempotency_key_reused", message)


def queue_full() -> ApiError:
    message = "Too much is waiting to be stored, so nothing new is taken on for now. Try again later."
    return ApiError(
        503, "service_unavailable", "queue_full", message, headers={"retry-after": QUEUE_FULL_RETRY_SECONDS}
    )


def store_unavailable(why: str) -> ApiError:
    message = f"The service can't do this right now: {why}. Try again in a moment."
    headers = {"retry-after": UNAVAILABLE_RETRY_SECONDS}
    return ApiError(503, "service_unavailable", "store_unavailable", message, headers=headers)


def outcome_unknown(response: str) -> ApiError:
    message = f"The answer could not be stored in time. GET /v1/responses/{response} tells how it ended."
    headers = {"retry-after": UNAVAILABLE_RETRY_SECONDS}
    return ApiError(503, "service_unavailable", "outcome_unknown", message, headers=headers)


def response_interrupted(response: str, *, stored: bool) -> ApiError:
    """Cancelled, or cut off by the end of its process. What is stored of it would be there twice after a retry."""
    message = "The answer was broken off before its end."
    if stored:
        message += f" What had come is in its conversation; GET /v1/responses/{response} shows it."
    headers = {"retry-after": UNAVAILABLE_RETRY_SECONDS, "x-should-retry": "false" if stored else "true"}
    return ApiError(503, "service_unavailable", "response_interrupted", message, headers=headers)


def invalid_api_key() -> ApiError:
    message = "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'."
    return ApiError(401, INVALID, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})


def insufficient_scope(needed: str) -> ApiError:
    message = f"This API key lacks the scope '{needed}'. Use a key that has it, or ask the operator to add it."
    return ApiError(403, INVALID, "insufficient_scope", message)


def rate_limited(kind: str, limit: int, seconds: float, shown: str) -> ApiError:
    """`kind` is `requests` or `tokens`; OpenAI's API too tells it as the error's type."""
    message = f"Rate limit reached: {limit} {kind} per minute. Try again in {shown}."
    headers = {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    return ApiError(429, kind, "rate_limit_exceeded", message, headers=headers)


def foreign_origin() -> ApiError:
    message = "Another site's page may not connect here. Serve the page from this service's own address."
    return ApiError(403, INVALID, "foreign_origin", message)


def binary_frame() -> ApiError:
    return invalid("invalid_type", "The frame is binary. Send each event as JSON in a text frame.", None)


def turn_running() -> ApiError:
    message = "A response is still running on this connection. Wait for its last event, or open another connection."
    return ApiError(409, INVALID, "response_running", message)


def previous_response_not_found(previous: str) -> ApiError:
    """What a WebSocket calls it: clients then send the whole input again."""
    message = f"Previous response with id '{previous}' not found. Send the whole input without 'previous_response_id'."
    return invalid("previous_response_not_found", message, "previous_response_id")


def connection_limit(minutes: float) -> ApiError:
    message = f"This WebSocket connection has been open for {minutes:g} minutes, its limit. Open a new one to go on."
    return invalid("websocket_connection_limit_reached", message, None)


def method_not_allowed(method: str, path: str, allowed: Iterable[str]) -> ApiError:
    headers = {"allow": ", ".join(allowed)}
    message = f"{path} does not take {method}, but {headers['allow']}. See docs/api.md."
    return ApiError(405, INVALID, "method_not_allowed", message, headers=headers)


def unknown_url(method: str, path: str) -> ApiError:
    return ApiError(404, INVALID, "unknown_url", f"Unknown request URL: {method} {path}. See docs/api.md.")


def client_left() -> ApiError:
    """Nobody reads it, but it is no failure of ours either."""
    return invalid("client_left", "The connection ended before the body was whole.", None)


def server_error() -> ApiError:
    message = "Something went wrong on our side. Try again; the x-request-id of this answer is in the service's log."
    return ApiError(500, "server_error", "server_error", message)


def from_upstream(status: int, code: str, message: str, param: str | None, headers: dict[str, str]) -> ApiError:
    kinds = {400: INVALID, 404: INVALID, 429: "rate_limit_error", 503: "service_unavailable"}
    return ApiError(status, kinds.get(status, "upstream_error"), code, message, param, headers)
