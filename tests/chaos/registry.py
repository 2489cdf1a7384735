"""The faults by number and name; each is one function on a stage of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.stage import Fault, Needs

SHORT_ITEMS = 400
LARGE_ITEMS = 40_000
# From the fault's end until everything works again and is stored, unless a fault has reasons for more.
RECOVERY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    number: int
    name: str
    run: Fault
    needs: Needs
    within_seconds: float


FAULTS: dict[int, Entry] = {}


def fault(
    number: int,
    name: str,
    *,
    migrated: bool = True,
    own_postgres: bool = False,
    debian: bool = False,
    shim: bool = False,
    redis_settings: tuple[tuple[str, str], ...] = (),
    within_seconds: float = RECOVERY_SECONDS,
) -> Callable[[Fault], Fault]:
    """Register one fault of the design's list; what the words mean is in `Needs`."""

    def keep(run: Fault) -> Fault:
        assert number not in FAULTS, FAULTS[number].name
        needs = Needs(migrated, own_postgres, debian, shim, redis_settings)
        FAULTS[number] = Entry(number, name, run, needs, within_seconds)
        return run

    return keep
