"""The short variant of every fault of the campaign: it happens, and nothing that was acknowledged suffers.

Most of a fault is waiting for somebody's lease, lock or start, so some are played side by side.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.campaign import Outcome, carry_out
from tests.chaos.registry import FAULTS, SHORT_ITEMS, Entry
from tests.running import Postgres

pytestmark = pytest.mark.anyio
SEED = 7
SIDE_BY_SIDE = 3

Playing = dict[int, "asyncio.Task[Outcome]"]


@pytest.fixture(scope="module")
async def playing(postgres: Postgres) -> AsyncIterator[Playing]:
    """All of them, a few at a time, in the order of the tests."""
    room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def play(entry: Entry) -> Outcome:
        async with room:
            return await carry_out(entry, postgres, items=SHORT_ITEMS, large=False, seed=SEED)

    tasks = {number: asyncio.create_task(play(entry)) for number, entry in sorted(FAULTS.items())}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("number", sorted(FAULTS), ids=lambda number: f"{number:02}")
async def test_fault(playing: Playing, number: int) -> None:
    entry, outcome = FAULTS[number], await playing[number]
    assert outcome.report.sound, (entry.name, outcome)
    assert outcome.report.recovery_seconds < entry.within_seconds, (entry.name, outcome)
