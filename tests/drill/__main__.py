"""`make alerts`: every panel under load, then every alert by its fault; prints the tables of docs/observability.md."""

import argparse
import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.drill import panels, play
from tests.drill.faults import FAULTS
from tests.drill.load import everything, one_provider, two_providers
from tests.drill.panels import shown_under_load
from tests.drill.play import Played
from tests.drill.prometheus import Cluster, Prometheus, targets_of
from tests.drill.stage import Place, opened, place_in, talked_to, watched
from tests.running import Folder, Part, Postgres, postgres_in
from tests.waiting import wait_until

# Nothing happens to it: none of its alerts may ever fire.
WELL = "well"
STREAMED = "slow"
KNOWN_SECONDS = 30.0
# A counter that moves before Prometheus has seen it shows no increase.
AT_WORK = 'chatbot_queue_enqueued_entries_total{{namespace="{}"}} offset 5s > 0'
EVER_FIRED = f'count by (alertname) (count_over_time(ALERTS{{namespace="{WELL}", alertstate="firing"}}[1h]))'


def main() -> int:
    parser = argparse.ArgumentParser(prog="make alerts", description=__doc__)
    parser.add_argument("places", nargs="*", choices=[[], *FAULTS], help="only the faults of these; without the panels")
    return asyncio.run(_run(parser.parse_args().places))


async def _run(chosen: list[str]) -> int:
    folder = Folder()
    try:
        async with _postgres(folder.path / "shared") as shared:
            if not chosen:
                await _show_panels(folder.path, shared)
            return await _raise_alerts(folder.path, shared, chosen or list(FAULTS))
    finally:
        folder.remove()


@asynccontextmanager
async def _postgres(folder: Path) -> AsyncIterator[Postgres]:
    server = postgres_in(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def _show_panels(folder: Path, postgres: Postgres) -> None:
    place = await place_in(folder, "chat", postgres, two_providers)
    async with (
        watched(folder / "panels", targets_of("chat", place.service), "chat") as (prometheus, _),
        opened(place),
        everything(place.service, place.redis),
    ):
        _say(*panels.table_of(await shown_under_load(prometheus)), "")


async def _raise_alerts(folder: Path, postgres: Postgres, chosen: list[str]) -> int:
    async with AsyncExitStack() as stack:
        # One of them stops its PostgreSQL.
        alone = await stack.enter_async_context(_postgres(folder / "alone"))
        places = {
            name: await place_in(folder, name, alone if name == "queue" else postgres, _settings_of(name))
            for name in (WELL, *chosen)
        }
        targets = [target for place in places.values() for target in targets_of(place.namespace, place.service)]
        prometheus, cluster = await stack.enter_async_context(watched(folder / "alerts", targets, *places))
        for name, place in places.items():
            await stack.enter_async_context(opened(place))
            await stack.enter_async_context(talked_to(place, stream=name == STREAMED))
        for name in places:
            at_work = functools.partial(prometheus.query, AT_WORK.format(name))
            await wait_until(at_work, f"Prometheus to know the API of {name} at work", KNOWN_SECONDS)
        runs = [_play_all(name, places[name], prometheus, cluster) for name in chosen]
        played = [one for those in await asyncio.gather(*runs) for one in those]
        ever_fired = [sample["metric"]["alertname"] for sample in await prometheus.query(EVER_FIRED)]
    _say(*play.table_of(played), "")
    _say(f"fired where no fault was: {ever_fired or 'none'}")
    return 1 if ever_fired else 0


def _settings_of(name: str) -> Callable[[Path, Part], dict[str, str]]:
    # So few entries that the queue is full within seconds.
    return functools.partial(one_provider, QUEUE_LIMIT="150" if name == "queue" else "")


async def _play_all(name: str, place: Place, prometheus: Prometheus, cluster: Cluster) -> list[Played]:
    return [one for fault in FAULTS[name] for one in await play.play(fault, place, prometheus, cluster)]


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


sys.exit(main())
