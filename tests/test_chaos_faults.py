"""The short variant of every fault of the campaign: it happens, and nothing that was acknowledged suffers."""

import pytest

from tests.chaos.campaign import carry_out
from tests.chaos.registry import FAULTS, SHORT_ITEMS
from tests.running import Postgres

pytestmark = pytest.mark.anyio
SEED = 7


@pytest.mark.parametrize("number", sorted(FAULTS), ids=lambda number: f"{number:02}")
async def test_fault(postgres: Postgres, number: int) -> None:
    entry = FAULTS[number]
    outcome = await carry_out(entry, postgres, items=SHORT_ITEMS, large=False, seed=SEED)
    assert outcome.report.sound, (entry.name, outcome)
