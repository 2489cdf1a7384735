"""`python -m local` as a person at a terminal has it: started, read, interrupted, killed."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from openai import OpenAI

from local.children import HOST, end_stale, free_port
from local.parts import ROOT
from tests.waiting import wait_until_now

READY = " is ready; "
PARTS = ("api", "worker", "valkey", "postgres")


@dataclass
class Launcher:
    """One run at a time on one data folder. Its port stays the same from run to run."""

    data: Path
    port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started yet"
        return self._process

    @property
    def output(self) -> str:
        """What this run has printed so far."""
        return (self.data.parent / f"{self.data.name}.output").read_text(encoding="utf-8")

    def environment(self, **settings: str) -> dict[str, str]:
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **plain,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "DATA_FOLDER": str(self.data),
            "PORT": str(self.port),
            "METRICS_PORT": str(free_port()),
            "HEALTH_PORT": str(free_port()),
            **settings,
        }

    def run(self, cwd: Path = ROOT, **settings: str) -> "subprocess.CompletedProcess[str]":
        """A run that is expected to refuse to start."""
        return subprocess.run(
            [sys.executable, "-m", "local"],
            check=False,
            cwd=cwd,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=30,
        )

    def start(self, **settings: str) -> None:
        with (self.data.parent / f"{self.data.name}.output").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local"],
                cwd=ROOT,
                env=self.environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until_now(lambda: READY in self.output or self.process.poll() is not None, "the launcher's start", 60)
        assert READY in self.output, self.output

    def press_ctrl_c(self) -> None:
        """The terminal signals the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(timeout=60)

    def terminate(self) -> int:
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def part(self, name: str) -> psutil.Process:
        return psutil.Process(int((self.data / "logs" / f"{name}.pid").read_text(encoding="utf-8").split()[0]))

    def parts(self) -> list[psutil.Process]:
        return [self.part(name) for name in PARTS]

    def client(self, api_key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"http://{HOST}:{self.port}/v1", api_key=api_key)

    def printed(self, name: str) -> list[str]:
        """The words of the line that the greeting prints for `name`."""
        [line] = [line for line in self.output.splitlines() if line.startswith(f"  {name} ")]
        return shlex.split(line)[1:]

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.terminate()
        end_stale(self.data / "logs", dict.fromkeys(PARTS, signal.SIGKILL))
