"""Reads the upstreams' file again whenever it or a key that it names has changed; a faulty one changes nothing."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from api import metrics
from api.settings import Settings, read_upstreams_again
from api.upstream.routing import Routing
from core.settings import SettingsError

Looks = dict[Path, tuple[int, ...]]
log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""A change counts when two looks have found the same: one that is being written may be half a file."""


async def watch(routing: Routing, settings: Settings) -> None:
    """For as long as the process lives."""
    if not settings.upstreams_file:
        return
    last: Looks = {}
    read: Looks = {}
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await routing.close_unused()
        seen = _look(routing.upstreams.files)
        if seen == last != read:
            # From before the reading: what changes meanwhile, and keys that are in other files now, are seen next time.
            read = seen
            await _read(routing, settings)
        last = seen


async def _read(routing: Routing, settings: Settings) -> None:
    try:
        upstreams = await asyncio.to_thread(read_upstreams_again, settings)
    except SettingsError as error:
        metrics.UPSTREAMS_FILE_SOUND.set(0)
        why = str(error).splitlines()
        log.error("the upstreams' file is wrong, what was read before stays", extra={"why": why})  # noqa: TRY400
        return
    metrics.UPSTREAMS_FILE_SOUND.set(1)
    if upstreams != routing.upstreams:
        routing.use(upstreams)
        log.info("upstreams read", extra={"providers": list(upstreams.providers), "models": len(upstreams.models)})


def _look(files: Iterable[Path]) -> Looks:
    """What changes with a file: Kubernetes swaps a symbolic link to another one, others write into this one."""
    seen: Looks = {}
    for file in files:
        try:
            found = file.stat()
        except OSError:
            seen[file] = ()
        else:
            seen[file] = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    return seen
