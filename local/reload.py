"""`python -m local.reload MODULE`: run a module, and again after each change of the code; for `skaffold dev`'s pods.

Nothing but the standard library, for it runs in the images, which have no more than the module itself needs.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

# Also without a change something is looked at: a `stat` for each of some two hundred files.
POLL_SECONDS = 0.5
# Shorter than the drain of a release's pods: whoever develops does not want to wait for it.
STOP_SECONDS = 3.0


def _seen(module: str) -> dict[Path, int]:
    """When each file of the module and of core was last changed."""
    found = {}
    for folder in ("core", module):
        for path in Path(folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                found[path] = path.stat().st_mtime_ns
    return found


def _end(process: "subprocess.Popen[bytes]") -> int:
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _asked_to_stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    module = sys.argv[1]
    signal.signal(signal.SIGTERM, _asked_to_stop)
    while True:
        seen = _seen(module)
        # Without byte code, which would outlive a change within the same second to a file of the same length.
        process = subprocess.Popen([sys.executable, "-B", "-m", *sys.argv[1:]])
        try:
            while _seen(module) == seen:  # what ended by itself is started again once its code was mended
                time.sleep(POLL_SECONDS)
        finally:
            _end(process)
        print("the code has changed", file=sys.stderr)


if __name__ == "__main__":
    main()
