"""The product with one guarantee taken out: a copy of its tree, changed in one place."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from local.parts import ROOT

PACKAGES = ("core", "api", "worker")


@dataclass(frozen=True, slots=True)
class Change:
    """In this file, `old` becomes `new`. It must be there, so that a change of the product does not leave it behind."""

    file: str
    old: str
    new: str


def broken_tree(folder: Path, *changes: Change) -> Path:
    """A copy of the product with these changes, from which processes can be started."""
    tree = folder / "broken"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        path = tree / change.file
        text = path.read_text(encoding="utf-8")
        assert text.count(change.old) == 1, f"{change.file} has {change.old!r} {text.count(change.old)} times"
        path.write_text(text.replace(change.old, change.new), encoding="utf-8")
    return tree
