"""The payloads of an answer, one JSON document after the other: what holds whatever the provider's dialect."""

import re
from abc import ABC, abstractmethod
from typing import Any

import orjson

from api.upstream.exchange import Ask, Delta, Finish, UpstreamError
from api.upstream.failures import unreadable
from api.upstream.settings import LONGEST_MODEL
from core import tracing

NUL = b"\\u0000"
# An escape; the group: a NUL.
ESCAPE = re.compile(rb"\\(?:(u0000)|.)", re.DOTALL)
SHAPE_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class Reply(ABC):
    """Feed it payloads in order; then `ending` tells how it ended.

    `done`: the provider said that nothing will follow. `failure`: what it told, or what went wrong, in the middle; what
    was read before that counts.
    """

    def __init__(self, ask: Ask, key: str) -> None:
        self._ask = ask
        self._key = key
        self.finish: Finish | None = None
        self.done = False
        self.failure: UpstreamError | None = None
        self._named = False
        """The trace knows which model answers."""

    def read(self, payloads: list[bytes]) -> list[Delta]:
        """What they brought; stops at the first failure and at [DONE]."""
        deltas: list[Delta] = []
        for payload in payloads:
            try:
                # PostgreSQL stores no NUL: the item would be kept from the history for one character of it.
                document = orjson.loads(_without_nul(payload) if NUL in payload else payload)
            except orjson.JSONDecodeError:
                text = payload.strip()
                if text == b"[DONE]":
                    self.done = True
                elif text:
                    self.failure = unreadable("a chunk that is not JSON")
                else:
                    continue
                break
            try:
                if not self._named:
                    self._name(document)
                self._read_document(document, deltas)
            except SHAPE_ERRORS:
                self.failure = unreadable("a chunk of an unknown shape")
            if self.failure is not None:
                break
        return deltas

    def _name(self, document: Any) -> None:  # noqa: ANN401 - JSON of any shape
        """May raise what a wrong shape raises."""
        model = document.get("model") or (document.get("response") or {}).get("model")
        self._named = bool(model) or tracing.recorded() is None
        if isinstance(model, str) and model:
            tracing.note({"gen_ai.response.model": model[:LONGEST_MODEL]})

    @abstractmethod
    def _read_document(self, document: Any, deltas: list[Delta]) -> None:  # noqa: ANN401 - JSON of any shape
        """May raise what a wrong shape raises."""

    @abstractmethod
    def ending(self) -> list[Delta]:
        """The last deltas, once the provider ended; raises what it told or that it was cut."""


def _without_nul(payload: bytes) -> bytes:
    return ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], payload)
