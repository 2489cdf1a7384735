"""Broken variants of this service, each without one of the rules that its promises rest on: the judge must see each.

A variant is a copy of the tree in which one exact text is replaced. A text that is not there any more is an error: the
rule moved, and the variant has to follow it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from local.parts import ROOT

PACKAGES = ("core", "api", "worker")


@dataclass(frozen=True, slots=True)
class Patch:
    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Variant:
    """`patches` break the code, `settings` break Redis's and admit it to our processes."""

    name: str
    patches: tuple[Patch, ...] = ()
    redis_settings: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    def tree_in(self, folder: Path) -> Path:
        """The broken tree, made in this folder."""
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        for patch in self.patches:
            file = folder / patch.file
            text = file.read_text(encoding="utf-8")
            assert text.count(patch.old) == 1, f"{patch.file} has no longer, or more than once: {patch.old}"
            file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
        return folder


FENCE = "if state[2] ~= response or state[3] ~= token then"

EVERYSEC = Variant(
    "everysec instead of always",
    redis_settings=(("appendfsync", "everysec"),),
    settings=(("REDIS_APPENDFSYNC", "everysec"),),
)
NOTHING_COMPARED = Variant(
    "ON CONFLICT DO NOTHING without the comparison",
    (
        Patch(
            "worker/store.py",
            'clashes = [rows[record["line"] - 1] for record in await connection.fetch(table.clashing)]',
            "clashes: list[Row] = []",
        ),
    ),
)
ACK_OF_ANYBODY = Variant(
    "an ack without token",
    (
        Patch(
            "worker/scripts/ack.lua",
            "if redis.call('HGET', META, 'epoch') ~= epoch or not redis.call('ZSCORE', LEASES, member) then",
            "if false then",
        ),
    ),
)
POPPED = Variant(
    "LPOP instead of the lease",
    (
        Patch(
            "worker/scripts/claim.lua",
            "redis.call('HSET', META, 'next', text(to))",
            "redis.call('LTRIM', QUEUE, text(to - head), -1)\n"
            "redis.call('HSET', META, 'next', text(to), 'head', text(to))",
        ),
    ),
)
LOCK_OF_ANYBODY = Variant(
    "a lock without token",
    (
        Patch("api/scripts/finish.lua", FENCE, "if false then"),
        Patch("api/scripts/flush.lua", FENCE, "if false then"),
    ),
)
UNSTORED_DERIVED = Variant(
    "unstored derived from positions",
    (
        # The highest position is stored, so all before it must be: but ranges commit in any order.
        Patch(
            "worker/scripts/ack.lua",
            "local unstored = math.max(tonumber(state[1]) - tonumber(count), 0)",
            "local unstored = 0",
        ),
    ),
)
COUNTING_FENCE = Variant(
    "a fence that counts",
    (
        Patch(
            "core/scripts/renew.lua",
            "local epoch = text(math.max(tonumber(candidate), tonumber(state[1] or '0') + 1))",
            "local epoch = text(tonumber(state[1] or '0') + 1)",
        ),
    ),
)
WARM_OF_ANYBODY = Variant(
    "a warm without ticket",
    (Patch("api/scripts/warm.lua", "redis.call('GET', load_key(tenant, thread)) ~= ticket or ", ""),),
)
HALF_A_COPY = Variant(
    "a hot copy that is half evicted and taken for whole",
    (
        Patch(
            "api/scripts/append.lua",
            "elseif not state[2] or redis.call('LLEN', list) ~= tonumber(state[2]) then",
            "elseif not state[2] then",
        ),
    ),
)
