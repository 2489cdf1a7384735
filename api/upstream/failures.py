"""What a provider's failure means for our client: which status and code, and whether another attempt may help."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from api.upstream.exchange import UpstreamError

MESSAGE_CHARACTERS = 300
# 409 is OpenAI's "another request holds this resource"; the others are what RFC 9110 calls temporary.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
FOREIGN_REASONING_CODES = frozenset({"invalid_encrypted_content"})
TOO_LONG_WORDS = re.compile(r"context (length|size|window)|maximum context|prompt is too long", re.IGNORECASE)


class ProviderError(UpstreamError):
    """The provider's own failure, not the request's: another provider may well answer."""


class PassingError(ProviderError):
    """A failure that another attempt may not meet."""


class ForeignReasoningError(UpstreamError):
    """The provider can't open sealed reasoning: another one, or another account, made it."""

    def __init__(self) -> None:
        super().__init__(400, "upstream_rejected", "the model provider can't read the encrypted reasoning of the input")


class EmptyStreamError(ProviderError):
    """A stream with HTTP 200 and not one byte in it."""

    def __init__(self) -> None:
        super().__init__(502, "upstream_cut", "the model provider sent an empty stream")


def refused(status: int, body: bytes, headers: Mapping[str, str], key: str) -> UpstreamError:
    """The failure behind an HTTP status other than 200."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None  # HTML of a proxy, or plain text: nothing for a client's eyes
    return failure(status, told(answer), key, _retry_after_seconds(headers))


def told(answer: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """The error in a provider's JSON: an object or a text; None when there is none."""
    if not isinstance(answer, dict):
        return None
    return answer.get("error") or answer.get("detail") or (answer if "message" in answer else None)


def failure_in_answer(error: Any, key: str) -> UpstreamError:  # noqa: ANN401 - JSON of any shape
    """The failure that came after HTTP 200; its `code` is often the status that came too late."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code.isdecimal():
        code = int(code)
    return failure(code if isinstance(code, int) and 400 <= code < 600 else 500, error, key)


def failure(status: int, error: Any, key: str, retry_after_seconds: float | None = None) -> UpstreamError:  # noqa: ANN401
    kind = PassingError if status in PASSING else ProviderError
    words = _message(error, key)
    if _codes(error) & TOO_LONG_CODES or (status not in (401, 403, 429) and TOO_LONG_WORDS.search(words)):
        # Whatever the status: llama-cpp-python has 500 for it, and no other attempt makes the question shorter.
        message = words or "the input exceeds the model's context"
        return UpstreamError(400, "context_length_exceeded", message, param="input")
    if _codes(error) & FOREIGN_REASONING_CODES:
        return ForeignReasoningError()
    match status:
        case 429:
            if _codes(error) & {"insufficient_quota"}:
                kind = ProviderError  # no wait brings money
            message = "the model provider's rate limit is reached"
            return kind(429, "rate_limit_exceeded", message, retry_after_seconds=retry_after_seconds)
        case 400 | 404 | 413 | 422:
            message = words or f"the model provider refused the request (HTTP {status})"
            # 404: this provider does not have the model.
            return (ProviderError if status == 404 else UpstreamError)(400, "upstream_rejected", message)
        case 401 | 403:
            return ProviderError(502, "upstream_auth", "the model provider refused this server's credentials")
        case 408 | 504:
            return kind(504, "upstream_timeout", f"the model provider timed out (HTTP {status})")
        case _:
            message = f"the model provider failed (HTTP {status})"
            return kind(502, "upstream_error", message, retry_after_seconds=retry_after_seconds)


def unreachable(error: Exception) -> UpstreamError:
    """The class alone tells what happened; the text may hold addresses that are none of the client's business."""
    return PassingError(502, "upstream_error", f"the model provider can't be reached ({error.__class__.__name__})")


def unreadable(what: str) -> UpstreamError:
    return ProviderError(502, "upstream_error", f"the model provider sent {what}")


def timed_out(what: str) -> UpstreamError:
    return PassingError(504, "upstream_timeout", f"the model provider timed out {what}")


def cut() -> UpstreamError:
    return PassingError(502, "upstream_cut", "the model provider ended its answer before it was whole")


def _message(error: Any, key: str) -> str:  # noqa: ANN401 - JSON of any shape
    text = error.get("message") if isinstance(error, dict) else error
    if isinstance(text, list):
        # FastAPI's `detail`: a list of what is wrong
        text = "; ".join(str(part["msg"]) for part in text if isinstance(part, dict) and "msg" in part)
    if not isinstance(text, str) or "<html" in text.lower() or "<!doctype" in text.lower():
        return ""
    text = " ".join(text.replace("\0", " ").split())
    if key:
        text = text.replace(key, "***")
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 1] + "…"


def _codes(error: Any) -> set[str]:  # noqa: ANN401 - JSON of any shape
    return {str(error.get(name)) for name in ("code", "type")} if isinstance(error, dict) else set()


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """`retry-after-ms` (Azure, OpenAI) is finer than `retry-after`, which is seconds or a date."""
    if milliseconds := _number(headers.get("retry-after-ms", "")):
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is not None or not value:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else None
