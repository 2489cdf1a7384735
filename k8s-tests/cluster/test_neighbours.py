"""Two releases in one namespace keep to themselves."""

import pytest

from cluster.check import bundled_stores, visit
from cluster.images import Images
from cluster.release import Release, basic_values
from tests.chaos.acts import append, begin_talk

pytestmark = pytest.mark.anyio
# What one release is enough of.
SLIM = {"api": {"replicas": 1}}


async def test_two_releases_in_one_namespace(main: Release, images: Images) -> None:
    second = Release(main.namespace, "second", basic_values(images))
    await second.install(SLIM)
    try:
        assert await second.api_key() != await main.api_key()
        async with visit(main) as town, visit(second) as other_town:
            for one, other in ((town, other_town), (other_town, town)):
                talk = await begin_talk(one, one.door)
                assert await append(one, one.door, talk) == 200
                status, answer = await other.call("GET", f"{other.door.url}/conversations/{talk.conversation}")
                assert status == 404, answer
        for release, town_of_it in ((main, town), (second, other_town)):
            stored = await (await bundled_stores(release)).sql("SELECT DISTINCT conversation FROM items")
            others = other_town if town_of_it is town else town
            assert not {row[0] for row in stored} & {talk.conversation for talk in others.ledger.talks}
        assert await second.run_tests()
    finally:
        await second.uninstall()
