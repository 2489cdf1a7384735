"""The chart's rules for a drill of minutes: the same expressions, with every time 600 times shorter.

- `for` becomes a 600th of itself, 1 s at least;
- a window in brackets and an `offset` become a 600th, 12 s at least: what is sampled every 5 s needs that much to move;
- a limit in seconds (a metric that ends in `_seconds`, and `>`) becomes a 600th, 1 s at least.

The names of what is recorded (`…_rate5m`) stay, so that the expressions which use them stay too.
"""

import re
from pathlib import Path
from typing import Any

import yaml

FACTOR = 600
SHORTEST_SECONDS = 1
SHORTEST_WINDOW_SECONDS = 12
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hurry_files(files: list[Path], folder: Path) -> None:
    """Write all of them, hurried, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        hurried = hurry(yaml.safe_load(path.read_text(encoding="utf-8")))
        (folder / path.name).write_text(yaml.safe_dump(hurried), encoding="utf-8")


def hurry(file: dict[str, Any]) -> dict[str, Any]:
    for group in file["groups"]:
        for rule in group["rules"]:
            rule["expr"] = hurried_expression(rule["expr"])
            if "for" in rule:
                rule["for"] = _shorter(rule["for"], SHORTEST_SECONDS)
    return file


def hurried_expression(expression: str) -> str:
    windows = re.sub(
        r"(\[|\boffset )(\d+[smhd])\b", lambda found: found[1] + _shorter(found[2], SHORTEST_WINDOW_SECONDS), expression
    )
    return re.sub(
        r"(_seconds\s*>\s*)(\d+)\b", lambda found: found[1] + _shorter(found[2] + "s", SHORTEST_SECONDS)[:-1], windows
    )


def _shorter(duration: str, shortest: int) -> str:
    seconds = int(duration[:-1]) * UNITS[duration[-1]]
    return f"{max(shortest, seconds // FACTOR)}s"
