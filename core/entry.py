"""The record that crosses the queue.

An entry is bytes: a header line that is readable without its body, a line feed, and a JSON body (empty for deletes).

    1 TENANT CONVERSATION POSITION KIND ID EXTRA…\n{json}

The position is assigned by Redis in the script that enqueues, so the API brings everything after it: the *tail*.

| kind | id | extra | body |
|---|---|---|---|
| item | item id | response id or `-` | the item |
| response | response id | count of input items, count of output items | the response without its output |
| conversation | conversation id | | created_at, metadata, hidden, parent, parent_position |
| delete_conversation, delete_item | what is deleted | | empty |
| delete_response | response id | in a hidden thread: the positions of its first and last item | empty |

Behind these, an entry whose writer is traced may have the word `trace:TRACE-SPAN.` (docs/adr/0016-traces.md). Who reads
a header takes no notice of words that it does not know.

A response's position is that of its first item, 0 when it left the conversation as it was (then its body has `input`).
"""

from enum import StrEnum
from typing import NamedTuple

VERSION = "1"
NO_RESPONSE = "-"
# The last word of a header whose conversation had no hot copy to count it in `unstored` when it was queued.
UNCOUNTED = "uncounted"
# Before the span that wrote an entry. A dot is behind it, for Redis's scripts look for pairs of numbers in headers.
TRACE = " trace:"
TRACE_CHARACTERS = 49
# Far above what ids and tenants need, and small enough for any index on them.
MAX_HEADER_BYTES = 1024
# Microseconds of Unix time have 16 until the year 2286. Redis's scripts can't count further either.
MAX_POSITION_DIGITS = 16


_TRACE = TRACE.encode()


class Kind(StrEnum):
    ITEM = "item"
    RESPONSE = "response"
    CONVERSATION = "conversation"
    DELETE_CONVERSATION = "delete_conversation"
    DELETE_RESPONSE = "delete_response"
    DELETE_ITEM = "delete_item"


class MalformedEntryError(ValueError):
    """An entry whose header can't be read; it can only become a dead letter."""


KINDS = {kind.value: kind for kind in Kind}


class Entry(NamedTuple):
    """One parsed entry; `position` is in the conversation's own order, `body` is undecoded JSON."""

    tenant: str
    conversation: str
    position: int
    kind: Kind
    id: str
    extra: tuple[str, ...]
    body: bytes


def item_tail(item_id: str, response_id: str | None, body: bytes, trace: str = "") -> bytes:
    return f"{Kind.ITEM} {item_id} {response_id or NO_RESPONSE}{trace_word(trace)}\n".encode() + body


def response_tail(response_id: str, input_count: int, output_count: int, body: bytes, trace: str = "") -> bytes:
    return f"{Kind.RESPONSE} {response_id} {input_count} {output_count}{trace_word(trace)}\n".encode() + body


def tail(kind: Kind, entry_id: str, body: bytes = b"", trace: str = "") -> bytes:
    return f"{kind} {entry_id}{trace_word(trace)}\n".encode() + body


def trace_word(trace: str) -> str:
    """`trace`: as tracing.carried gives it. One entry of those that a step writes has it."""
    return f"{TRACE}{trace}." if trace else ""


def trace_of(entry: bytes) -> str:
    """The span that wrote an entry, as places.read_carried takes it; empty for most."""
    end = entry.find(b"\n", 0, MAX_HEADER_BYTES)
    at = entry.find(_TRACE, 0, end) if end > 0 else -1
    if at < 0:
        return ""
    start = at + len(_TRACE)
    return entry[start : start + TRACE_CHARACTERS].decode("latin-1")


def parse(entry: bytes) -> Entry:
    """Read one entry of the list; raises MalformedEntryError for anything that no version of the API has written."""
    header, separator, body = entry.partition(b"\n")
    text = header.decode("latin-1")
    words = text.split(" ")
    sound = separator and len(header) <= MAX_HEADER_BYTES and text.isascii() and text.isprintable()
    if not sound or len(words) < 6 or words[0] != VERSION:
        raise MalformedEntryError(f"unreadable header of {len(header)} bytes")
    if not words[3].isdecimal() or len(words[3]) > MAX_POSITION_DIGITS:
        raise MalformedEntryError(f"unreadable header of {len(header)} bytes")
    kind = KINDS.get(words[4])
    if kind is None:
        raise MalformedEntryError(f"unknown kind in a header of {len(header)} bytes")
    return Entry(words[1], words[2], int(words[3]), kind, words[5], tuple(words[6:]), body)
