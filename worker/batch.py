"""What a range of the queue holds, sorted by what PostgreSQL does with it, each row already in COPY's binary form.

Each row is encoded on its own, so that one that can't be encoded is known at once.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import orjson

from core.entry import NO_RESPONSE, UNCOUNTED, Entry, Kind, parse

# PostgreSQL counts microseconds from 2000, positions count them from 1970.
POSTGRES_EPOCH_US = 946_684_800_000_000
# In the header of an entry that was queued again from `dead_letters`, behind it the row's id.
REPLAY = "replay:"

# What reading an entry raises when it is none that the API writes.
UNREADABLE = (ValueError, LookupError, TypeError, struct.error)


def replayed(entry: Entry) -> int | None:
    """The dead letter from which an entry was queued again."""
    return next((int(word.removeprefix(REPLAY)) for word in entry.extra if word.startswith(REPLAY)), None)


class Row(NamedTuple):
    """One row for COPY; `source` is the entry as it was queued."""

    source: bytes
    entry: Entry
    encoded: bytes


class Change(NamedTuple):
    """A conversation as its writer left it."""

    entry: Entry
    created_at: float
    metadata: bytes
    hidden: bool
    parent: str | None
    parent_position: int | None


class Letter(NamedTuple):
    """An entry that can't be stored, why, and its header if that can be read."""

    source: bytes
    entry: Entry | None
    reason: str

    def original(self) -> bytes:
        """Without the mark of an earlier replay."""
        if self.entry is None or replayed(self.entry) is None:
            return self.source
        header, _, body = self.source.partition(b"\n")
        return header.partition(b" " + REPLAY.encode())[0] + b"\n" + body


@dataclass(slots=True)
class Batch:
    items: list[Row] = field(default_factory=list)
    responses: list[Row] = field(default_factory=list)
    conversations: list[Change] = field(default_factory=list)
    deletes: list[Entry] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    replayed: list[int] = field(default_factory=list)

    def entries(self) -> list[Entry]:
        """All whose header can be read, the dead ones included."""
        return [
            *(row.entry for row in self.items),
            *(row.entry for row in self.responses),
            *(change.entry for change in self.conversations),
            *self.deletes,
            *(letter.entry for letter in self.letters if letter.entry is not None),
        ]

    def conversations_named(self) -> set[tuple[str, str]]:
        """The conversations whose tombstones concern this batch."""
        return {(entry.tenant, entry.conversation) for entry in self.entries()}

    def last_position(self) -> int:
        return max((entry.position for entry in self.entries()), default=0)


@lru_cache(maxsize=1024)
def _item_header(*lengths: int) -> struct.Struct:
    tenant, conversation, item_id, response = lengths
    return struct.Struct(f">hi{tenant}si{conversation}siqi{item_id}si{response}siqiB")


@lru_cache(maxsize=1024)
def _item_header_alone(*lengths: int) -> struct.Struct:
    tenant, conversation, item_id = lengths
    return struct.Struct(f">hi{tenant}si{conversation}siqi{item_id}siiqiB")


def encode_item(entry: Entry) -> bytes:
    """Columns: tenant, conversation, position, id, response, created_at, item."""
    tenant, conversation, item_id = entry.tenant.encode(), entry.conversation.encode(), entry.id.encode()
    lengths = len(tenant), len(conversation), len(item_id)
    at, size = entry.position - POSTGRES_EPOCH_US, len(entry.body) + 1
    start = (7, lengths[0], tenant, lengths[1], conversation, 8, entry.position, lengths[2], item_id)
    # jsonb begins with its version, 1; a length of -1 is NULL.
    if entry.extra[0] == NO_RESPONSE:
        return _item_header_alone(*lengths).pack(*start, -1, 8, at, size, 1) + entry.body
    response = entry.extra[0].encode()
    return _item_header(*lengths, len(response)).pack(*start, len(response), response, 8, at, size, 1) + entry.body


def encode_response(entry: Entry) -> bytes:
    """Columns: tenant, id, conversation, position, input_count, output_count, created_at, body."""
    created_us = entry.position or int(orjson.loads(entry.body)["created_at"]) * 1_000_000
    columns = (
        entry.tenant.encode(),
        entry.id.encode(),
        entry.conversation.encode(),
        struct.pack(">q", entry.position),
        struct.pack(">i", int(entry.extra[0])),
        struct.pack(">i", int(entry.extra[1])),
        struct.pack(">q", created_us - POSTGRES_EPOCH_US),
        b"\x01" + entry.body,
    )
    return struct.pack(">h", len(columns)) + b"".join(struct.pack(">i", len(column)) + column for column in columns)


def read_change(entry: Entry) -> Change:
    body = orjson.loads(entry.body)
    return Change(
        entry,
        float(body["created_at"]),
        orjson.dumps(body["metadata"]),
        body["hidden"],
        body["parent"],
        body["parent_position"],
    )


def arrange(sources: Iterable[bytes], letters: Iterable[Letter]) -> Batch:
    """Sort entries into a batch; those that can't be read join the dead letters."""
    batch = Batch(letters=list(letters))
    for source in sources:
        entry: Entry | None = None
        try:
            entry = parse(source)
            if (letter := replayed(entry)) is not None:
                batch.replayed.append(letter)
            match entry.kind:
                case Kind.ITEM:
                    batch.items.append(Row(source, entry, encode_item(entry)))
                case Kind.RESPONSE:
                    batch.responses.append(Row(source, entry, encode_response(entry)))
                case Kind.CONVERSATION:
                    batch.conversations.append(read_change(entry))
                case _:
                    batch.deletes.append(entry)
        except UNREADABLE as error:
            batch.letters.append(Letter(source, entry, f"unreadable: {type(error).__name__}"))
    return batch


def header_of(source: bytes) -> Entry | None:
    """Whose an entry is, as far as that can be told without its body."""
    try:
        return parse(source)
    except UNREADABLE:
        return None


def marked(source: bytes, letter: int, *, counted: bool = True) -> bytes:
    """The entry of a dead letter as it is queued again."""
    header, _, body = source.partition(b"\n")
    words = f" {REPLAY}{letter}" if counted else f" {REPLAY}{letter} {UNCOUNTED}"
    return header + words.encode() + b"\n" + body
