"""An Ask as the body of a Responses request: nothing of it is left with the server (`store: false`)."""

from api.upstream.exchange import Ask, Json
from api.upstream.failures import ProviderError

PLAIN_PARAMETERS = (
    "instructions",
    "parallel_tool_calls",
    "max_output_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "safety_identifier",
    "prompt_cache_key",
)


def responses_request(ask: Ask, *, stream: bool, openai: bool) -> Json:
    """Only what the client set is sent, so that everything else is the provider's default. Raises ProviderError for
    what this API has no word for: a chat-completions server may well know it."""
    if ask.further:
        names = ", ".join(sorted(ask.further))
        message = f"this model is asked by the Responses API, which does not know: {names}"
        raise ProviderError(400, "unsupported_parameter", message, param=min(ask.further))
    body: Json = {"model": ask.model, "input": _input(ask.items), "store": False}
    if stream:
        body["stream"] = True
    body |= _set(**{name: getattr(ask, name) for name in PLAIN_PARAMETERS})
    if text := _set(format=ask.text_format, verbosity=ask.verbosity):
        body["text"] = text
    if reasoning := _set(effort=ask.reasoning_effort, summary=ask.reasoning_summary):
        body["reasoning"] = reasoning
    if include := _included(ask, reasons=bool(reasoning)):
        body["include"] = include
    if ask.top_logprobs:
        body["top_logprobs"] = ask.top_logprobs
    if ask.tools:
        _add_tools(body, ask, openai=openai)
    return body


def _included(ask: Ask, *, reasons: bool) -> list[str]:
    # A model that reasons goes on where it was only when it gets its own reasoning back. Others refuse the word.
    wanted = ["reasoning.encrypted_content"] if reasons or ask.encrypted_reasoning else []
    return wanted if ask.top_logprobs is None else [*wanted, "message.output_text.logprobs"]


def _set(**values: object) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _input(items: list[Json]) -> list[Json]:
    return [_item(item) for item in items if item["type"] != "reasoning" or item.get("encrypted_content")]


def _item(item: Json) -> Json:
    """Without our id and state: the server keeps nothing, so an id is only something that it can't find."""
    match item:
        case {"type": "message", "role": "assistant", "content": content}:
            return {"type": "message", "role": "assistant", "content": _said(content)}
        case {"type": "reasoning"}:
            # Of what it thought, the server knows the sealed form alone.
            return {name: item[name] for name in ("type", "summary", "encrypted_content")}
        case _:
            return {name: value for name, value in item.items() if name not in ("id", "status")}


def _said(content: str | list[Json]) -> str | list[Json]:
    """A string where one will do: some servers know parts of an assistant only with the id that they gave it."""
    if isinstance(content, str):
        return content
    if all(part["type"] == "output_text" and not part.get("annotations") for part in content):
        return "".join(part["text"] for part in content)
    return [{name: value for name, value in part.items() if name != "logprobs"} for part in content]


def _add_tools(body: Json, ask: Ask, *, openai: bool) -> None:
    tools, choice = ask.tools or [], ask.tool_choice
    if isinstance(choice, dict) and choice["type"] == "allowed_tools" and not openai:
        allowed = {tool["name"] for tool in choice["tools"]}
        tools, choice = [tool for tool in tools if tool["name"] in allowed], choice["mode"]
    if not tools:
        return
    body["tools"] = [{name: value for name, value in tool.items() if value is not None} for tool in tools]
    if choice != "auto":
        body["tool_choice"] = choice
