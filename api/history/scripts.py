"""The API's Lua scripts (api/scripts/), each called by one function of one of the history modules."""

from pathlib import Path

from core.queue import Script

_FOLDER = Path(__file__).parent.parent / "scripts"
_RATES = (_FOLDER / "rates.lua").read_text(encoding="utf-8")


def script(name: str, *, allow_oom: bool, counts: bool = False) -> Script:
    """`counts`: it counts the requests and tokens of tenants with limits."""
    return Script(_FOLDER / f"{name}.lua", allow_oom=allow_oom, library=_RATES if counts else "")
