"""Where in a trace somebody is: as HTTP's `traceparent` tells it, and as an entry of the queue does."""

import re
from typing import NamedTuple

# The W3C's Trace Context: version, trace, span, flags; a version after ours may have more behind them.
TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1


class Place(NamedTuple):
    """A span of any process."""

    trace_id: int
    span_id: int
    sampled: bool

    def carried(self) -> str:
        """`TRACE-SPAN`."""
        return f"{self.trace_id:032x}-{self.span_id:016x}"


def read_traceparent(text: str) -> Place | None:
    """None for what the grammar doesn't allow: such a header is as good as none."""
    found = TRACEPARENT.fullmatch(text)
    if found is None or (found[1] == "00" and found[5]):
        return None
    return Place(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & SAMPLED))


def read_carried(text: str) -> Place | None:
    """Of a span that is sampled: others are not carried."""
    return read_traceparent(f"00-{text}-01")
