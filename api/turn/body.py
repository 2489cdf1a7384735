"""The response object: how it stands while the turn runs, and how it ends. All 31 keys of the specification, always."""

import time
from dataclasses import dataclass
from typing import Any

import orjson

from api.schemas.responses import CreateResponse
from api.upstream.exchange import Usage

Json = dict[str, Any]


def skeleton(request: CreateResponse, response_id: str, model: str, conversation: str) -> Json:
    """The response before anything was produced."""
    reasoning = request.reasoning
    text: Json = {"format": request.text_format or {"type": "text"}}
    if request.verbosity is not None:
        text["verbosity"] = request.verbosity
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if request.background else "in_progress",
        "incomplete_details": None,
        "model": model,
        "previous_response_id": request.previous_response_id,
        "conversation": {"id": conversation} if conversation else None,
        "instructions": request.instructions,
        "output": [],
        "error": None,
        "tools": request.echoed_tools,
        "tool_choice": request.echoed_tool_choice,
        "truncation": request.truncation or "disabled",
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "text": text,
        "top_p": 1 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0,
        "frequency_penalty": request.frequency_penalty or 0,
        "top_logprobs": request.top_logprobs or 0,
        "temperature": 1 if request.temperature is None else request.temperature,
        "reasoning": None if reasoning is None else {"effort": reasoning.effort, "summary": reasoning.summary},
        "usage": None,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "store": request.store,
        "background": request.background,
        "service_tier": "default",
        "metadata": request.metadata or {},
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
    }


def usage_body(usage: Usage) -> Json:
    body: Json = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.estimated:
        # The provider gave no count; whoever bills by these numbers must be able to tell.
        body["estimated"] = True
    return body


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a turn ended; `reason` goes with incomplete, `code` and `message` with failed."""

    status: str
    reason: str | None = None
    code: str | None = None
    message: str | None = None


COMPLETED = Verdict("completed")


def conclude(start: Json, verdict: Verdict, usage: Usage | None) -> Json:
    """The final response without its output."""
    return {
        **start,
        "status": verdict.status,
        "completed_at": int(time.time()) if verdict.status == "completed" else None,
        "incomplete_details": None if verdict.reason is None else {"reason": verdict.reason},
        "error": None if verdict.code is None else {"code": verdict.code, "message": verdict.message},
        "usage": None if usage is None else usage_body(usage),
    }


def with_output(final: Json, output: list[bytes]) -> bytes:
    """`final` as JSON, with output items that are JSON already."""
    return orjson.dumps({**final, "output": [orjson.Fragment(item) for item in output]})
