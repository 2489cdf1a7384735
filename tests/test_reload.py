"""`python -m local.reload`, which runs the code in the pods of `skaffold dev`."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local.children import runs
from local.parts import ROOT
from tests.waiting import wait_until

CODE = """
import sys, time
print("version {version} of", *sys.argv[1:], file=open("said", "a"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """It runs the module `mine` of a folder that it may write."""
    for name in ("core", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "__main__.py").write_text(CODE.format(version=1))
    command = [sys.executable, "-m", "local.reload", "mine", "migrate"]
    process = subprocess.Popen(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    yield process
    process.kill()
    process.wait()


async def test_code_that_changes_is_run_again(reloading: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    code, said = tmp_path / "mine" / "__main__.py", tmp_path / "said"

    def says(text: str) -> bool:
        return said.exists() and said.read_text().endswith(text + "\n")

    await wait_until(lambda: says("version 1 of migrate"), "it runs")
    code.write_text("a mistake")
    (tmp_path / "core" / "new.lua").write_text("return 1")
    await wait_until(lambda: not any(map(runs, psutil.Process(reloading.pid).children())), "the mistake ends it")
    code.write_text(CODE.format(version=2))
    await wait_until(lambda: says("version 2 of migrate"), "it runs again once it was mended")
    (child,) = psutil.Process(reloading.pid).children()
    reloading.send_signal(signal.SIGTERM)
    await wait_until(lambda: reloading.poll() == 0, "it ends as it was asked to")
    assert not child.is_running()
