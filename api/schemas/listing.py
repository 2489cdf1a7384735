"""The query of GET /v1/conversations."""

import re
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from api.errors import invalid
from api.ids import CONVERSATION
from api.schemas.conversations import LONGEST_KEY, LONGEST_VALUE, MOST_PAIRS
from api.schemas.edge import parse_list_query

# As api/ids.py makes them. The place in the list is in the id, so the conversation itself may be gone.
CURSOR = re.compile(CONVERSATION + "[0-9a-f]{32}")
LONGEST_SEARCH = 1000
PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ConversationQuery:
    """`metadata` are the pairs that a conversation must have, `words` what one of its items must say, if anything."""

    after: str
    limit: int
    order: str
    metadata: dict[str, str]
    words: str | None


def parse_conversation_query(query: QueryParams) -> ConversationQuery:
    """Raises ApiError 400."""
    page = parse_list_query(query)
    after = page.after or ""
    if after and not CURSOR.fullmatch(after):
        raise invalid("invalid_value", "Invalid 'after': expected the last_id of the page before.", "after")
    return ConversationQuery(after, page.limit, page.order, _pairs(query), _words(query))


def _words(query: QueryParams) -> str | None:
    words = query.get("q")
    if words is not None and (not words.strip() or len(words) > LONGEST_SEARCH or "\0" in words):
        message = f"Invalid 'q': expected words to look for, at most {LONGEST_SEARCH} characters, without a NUL."
        raise invalid("invalid_value", message, "q")
    return words


def _pairs(query: QueryParams) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in query.multi_items():
        if not name.startswith("metadata"):
            continue
        match = PAIR.fullmatch(name)
        if match is None:
            raise invalid("invalid_value", "Invalid 'metadata': write it as metadata[key]=value.", "metadata")
        key = match[1]
        if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE or "\0" in name + value:
            message = f"Invalid 'metadata': no conversation has such a pair; keys end at {LONGEST_KEY} characters, "
            raise invalid("invalid_value", message + f"values at {LONGEST_VALUE}, and neither has a NUL.", "metadata")
        if pairs.setdefault(key, value) != value:
            raise invalid("invalid_value", "Invalid 'metadata': a key is asked for with two values.", "metadata")
    if len(pairs) > MOST_PAIRS:
        raise invalid("object_above_max_properties", f"Invalid 'metadata': at most {MOST_PAIRS} pairs.", "metadata")
    return pairs
