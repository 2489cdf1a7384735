"""An Ask as the body of a chat-completions request."""

from typing import Any

from api.upstream.exchange import Ask, Json, UpstreamError

TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
PLAIN_PARAMETERS = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "verbosity",
    "reasoning_effort",
)


def chat_request(ask: Ask, *, stream: bool, openai: bool) -> Json:
    """Only what the client set is sent, so that everything else is the provider's default.

    `openai`: the server is OpenAI's own, which has names of its own for some things (`max_completion_tokens`, the role
    `developer`) that other servers don't know.
    """
    body: Json = {"model": ask.model, "messages": _messages(ask, openai=openai), **ask.further}
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if ask.max_output_tokens is not None:
        body["max_completion_tokens" if openai else "max_tokens"] = ask.max_output_tokens
    for name in PLAIN_PARAMETERS:
        value = getattr(ask, name)
        if value is not None:
            body[name] = value
    if openai and ask.safety_identifier is not None:
        body["safety_identifier"] = ask.safety_identifier
    _add_form(body, ask)
    if ask.tools:
        _add_tools(body, ask)
    return body


def _add_form(body: Json, ask: Ask) -> None:
    if ask.text_format is not None:
        _add_format(body, ask.text_format)
    if ask.top_logprobs is not None:
        body["logprobs"] = True
    if ask.top_logprobs:
        body["top_logprobs"] = ask.top_logprobs


def callable_tools(ask: Ask) -> frozenset[str] | None:
    """The names of the functions that this answer may call; None: the client set no limit."""
    choice = ask.tool_choice
    if isinstance(choice, str):
        return frozenset() if choice == "none" else None
    if choice["type"] == "allowed_tools":
        return frozenset() if choice["mode"] == "none" else frozenset(tool["name"] for tool in choice["tools"])
    return frozenset({choice["name"]})


def _add_tools(body: Json, ask: Ask) -> None:
    choice = ask.tool_choice
    tools = ask.tools or []
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        allowed = {tool["name"] for tool in choice["tools"]}
        tools = [tool for tool in tools if tool["name"] in allowed]
        choice = choice["mode"]
    elif isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    if not tools:
        return
    body["tools"] = [
        {
            "type": "function",
            "function": {
                name: tool[name]
                for name in ("name", "description", "parameters", "strict")
                if tool.get(name) is not None
            },
        }
        for tool in tools
    ]
    if choice != "auto":
        body["tool_choice"] = choice
    if ask.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = ask.parallel_tool_calls


def _add_format(body: Json, text_format: Json) -> None:
    match text_format["type"]:
        case "json_schema":
            names = ("name", "description", "schema", "strict")
            schema = {name: text_format[name] for name in names if text_format.get(name) is not None}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        case "json_object":
            body["response_format"] = {"type": "json_object"}


def _messages(ask: Ask, *, openai: bool) -> list[Json]:
    messages: list[Json] = []
    if ask.instructions:
        messages.append({"role": "system", "content": ask.instructions})
    for item in ask.items:
        match item["type"]:
            case "message":
                _add_message(messages, item, openai=openai)
            case "function_call":
                call = {"name": item["name"], "arguments": item["arguments"]}
                _add_call(messages, {"id": item["call_id"], "type": "function", "function": call})
            case "function_call_output":
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
            case "compaction":
                message = "a compaction item that another service made says nothing to this model; leave it out"
                raise UpstreamError(400, "unsupported_content", message, param="input")
            case _:
                # Reasoning belongs to the model that made it, and a type that we don't know has no chat form.
                pass
    return messages


def _add_message(messages: list[Json], item: Json, *, openai: bool) -> None:
    role, content = item["role"], item["content"]
    if role == "assistant":
        text = content if content.__class__ is str else "".join(map(_said, content))
        if messages and "tool_calls" in messages[-1]:
            # The results of calls must follow them directly: what was said after them goes to the same message.
            messages[-1]["content"] = (messages[-1]["content"] or "") + text
        else:
            messages.append(_named(item, {"role": "assistant", "content": text}))
        return
    if role == "developer" and not openai:
        role = "system"
    messages.append(_named(item, {"role": role, "content": _content(content)}))


def _named(item: Json, message: Json) -> Json:
    """Only chat completions can tell several users apart by name."""
    return {**message, "name": item["name"]} if "name" in item else message


def _said(part: Json) -> str:
    """A refusal is what the assistant said, too: few servers know more than text in an assistant's message."""
    text: str = part["refusal"] if part["type"] == "refusal" else part.get("text", "")
    return text


def _add_call(messages: list[Json], call: Json) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: Any) -> str | list[Json]:  # noqa: ANN401 - a string or a list of parts
    """A string where one will do, for many servers know nothing else."""
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0]["type"] in TEXT_PARTS:
        text: str = content[0]["text"]
        return text
    return [_part(part) for part in content]


def _part(part: Json) -> Json:
    match part:
        case {"type": kind, "text": str(text)} if kind in TEXT_PARTS:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            image = {"url": url}
            # `auto` is what a server does anyway, and some don't know the word.
            if part.get("detail") in ("low", "high"):
                image["detail"] = part["detail"]
            return {"type": "image_url", "image_url": image}
        case {"type": "input_file", "file_data": str(data)}:
            file = {"file_data": data}
            if part.get("filename"):
                file["filename"] = part["filename"]
            return {"type": "file", "file": file}
        case _:
            raise UpstreamError(400, "unsupported_content", _why_not(part["type"]), param="input")


def _why_not(kind: str) -> str:
    match kind:
        case "input_file":
            return "a file can be sent to this model only as file_data, not by file_url or file_id"
        case "input_image":
            return "an image can be sent to this model only by image_url, not by file_id"
        case _:
            return f"content of the type {kind!r} can't be sent to this model"
