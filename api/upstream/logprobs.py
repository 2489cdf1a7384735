"""How likely each token was, in the form of the Responses API, which differs from that of chat completions by nothing
but what servers leave out."""

from typing import Any

from api.upstream.exchange import Ask, Delta, Json, Logprobs


def add_logprobs(ask: Ask, tokens: Any, deltas: list[Delta]) -> None:  # noqa: ANN401 - JSON of any shape
    """Put those of the text that comes next before it, if they were asked for."""
    if ask.top_logprobs is not None and isinstance(tokens, list):
        told = [{**_token(one), "top_logprobs": _tokens(one.get("top_logprobs"))} for one in tokens if _known(one)]
        if told:
            deltas.append(Logprobs(told))


def _tokens(tokens: Any) -> list[Json]:  # noqa: ANN401 - JSON of any shape
    return [_token(one) for one in tokens or () if _known(one)]


def _known(token: Any) -> bool:  # noqa: ANN401 - JSON of any shape
    """Some servers have null for what is too unlikely for a number."""
    return (
        isinstance(token, dict)
        and isinstance(token.get("token"), str)
        and isinstance(token.get("logprob"), float | int)
    )


def _token(token: Json) -> Json:
    given = token.get("bytes")
    return {
        "token": token["token"],
        "logprob": token["logprob"],
        "bytes": given if isinstance(given, list) else list(token["token"].encode()),
    }
