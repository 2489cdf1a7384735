"""`examples/chat.py` at a real terminal: what the README shows is what works."""

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self
from urllib.request import Request, urlopen

import pytest

from local.children import HOST
from local.parts import ROOT
from tests.conftest import StartService
from tests.fake_upstream import fake_upstream_in
from tests.running import Part, Service
from tests.waiting import wait_until_now

CTRL_C, CTRL_D = b"\x03", b"\x04"


def take_terminal() -> None:
    """Make it the new process's own, so that Ctrl-C becomes a signal; a shell's `&` has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, url: str, *arguments: str) -> None:
        self._end, other = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "chat.py"), *arguments],
            env={"PATH": os.environ["PATH"], "TERM": "dumb", "OPENAI_BASE_URL": url, "PYTHONWARNINGS": "error"},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - system calls, no lock to meet
        )
        os.close(other)
        self._seen = ""

    def send(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def expect(self, text: str) -> str:
        """Wait for this text; what came before it, since the last one."""

        def seen() -> bool:
            if select.select([self._end], [], [], 0)[0]:
                self._seen += os.read(self._end, 65536).decode()
            return text in self._seen

        try:
            wait_until_now(seen, f"{text!r} on the terminal")
        except AssertionError as error:
            error.add_note(f"the terminal shows {self._seen!r}")
            raise
        before, _, self._seen = self._seen.partition(text)
        return before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture(scope="module")
async def upstream(anyio_backend: str, folder: Path) -> AsyncIterator[Part]:  # noqa: ARG001 - the tests' event loop
    server = fake_upstream_in(folder / "upstream")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def held_service(start_service: StartService, upstream: Part) -> Service:
    """Its model says three words, and the rest once it is released."""
    return await start_service(OPENAI_BASE_URL=f"http://{HOST}:{upstream.port}/v1", MODEL="fake-hold-story")


def test_chat_and_continue_by_id(service: Service) -> None:
    with Terminal(service.url) as first:
        first.expect("conversation ")
        conversation = first.expect("\r\n> ")
        first.send(b"hello there\n")
        assert "hello there" in first.expect("\r\n> ").partition("\r\n")[2]
        first.send(CTRL_D)
        assert first.process.wait(10) == 0

    with Terminal(service.url, "--conversation", conversation) as second:
        second.expect(f"conversation {conversation}\r\n> ")


def test_ctrl_c_stops_the_answer_and_not_the_program(held_service: Service, upstream: Part) -> None:
    with Terminal(held_service.url) as terminal:
        terminal.expect("> ")
        terminal.send(b"tell me a story\n")
        terminal.expect("word3")
        terminal.send(CTRL_C)
        terminal.expect("[stopped]\r\n> ")
        release = Request(f"http://{HOST}:{upstream.port}/release/story", method="POST")
        with urlopen(release, timeout=5):  # noqa: S310 - our own address
            pass
        terminal.send(b"another one\n")
        terminal.expect("word32\r\n> ")
        terminal.send(CTRL_C)
        terminal.expect("\r\n> ")


def test_an_unknown_conversation_is_told(service: Service) -> None:
    with Terminal(service.url, "--conversation", "conv_unknown") as terminal:
        terminal.expect("conv_unknown")
        assert terminal.process.wait(10) == 1
