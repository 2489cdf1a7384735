"""The ledger check itself: what is broken in PostgreSQL behind the service's back, it tells."""

import pytest

from cluster.check import bundled_stores, check
from cluster.release import Release
from cluster.town import town_of
from tests.chaos.acts import append, begin_talk

pytestmark = pytest.mark.anyio

# The first item of the conversation that was written last.
ONE = """
SELECT * FROM items WHERE conversation = (SELECT conversation FROM items ORDER BY position DESC LIMIT 1)
 ORDER BY position LIMIT 1
"""
LATER = """
INSERT INTO items SELECT tenant, conversation, position + 1000, id || 'x', response, created_at, item FROM one
"""
BROKEN = {
    "lost": f"DELETE FROM items WHERE id = (SELECT id FROM ({ONE}) AS one)",  # noqa: S608 - ours
    "doubled": f"WITH one AS ({ONE}) {LATER}",
    "misordered": f"WITH one AS ({ONE}), gone AS (DELETE FROM items WHERE id = (SELECT id FROM one)) {LATER}",  # noqa: S608
}


@pytest.mark.parametrize("damage", BROKEN)
async def test_the_check_tells_what_is_broken(main: Release, damage: str) -> None:
    stores = await bundled_stores(main)
    async with town_of(main) as town:
        talk = await begin_talk(town, town.door)
        assert await append(town, town.door, talk) == 200
        await stores.drain()
        await stores.sql(BROKEN[damage])
        with pytest.raises(AssertionError, match=rf"\b{damage}=\['"):
            await check(town, stores)
