"""`make run`: started, interrupted, killed and started again by a person at a terminal."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from openai import AuthenticationError, OpenAI

from local.children import HOST, runs
from local.parts import ROOT
from tests.launching import PARTS, Launcher
from tests.running import Folder, Part, Postgres
from tests.waiting import wait_until_now


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    """The tests below follow one installation through its life, in their order."""
    own = Folder()
    one = Launcher(own.path / "data")
    yield one
    one.close()
    own.remove()


def say(client: OpenAI, conversation: str, text: str) -> str:
    """One streamed turn; what the model answered."""
    with client.responses.create(conversation=conversation, input=text, stream=True) as stream:
        return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


def texts(client: OpenAI, conversation: str) -> list[str]:
    items = client.conversations.items.list(conversation, order="asc")
    return [part.text for item in items if item.type == "message" for part in item.content if hasattr(part, "text")]


@pytest.fixture(scope="module")
def conversation(launcher: Launcher) -> str:
    """The conversation of the first run."""
    launcher.start()
    return launcher.client().conversations.create().id


def test_two_turns_with_sdk_and_curl(launcher: Launcher, conversation: str) -> None:
    assert "echo" in launcher.output
    assert "first" in say(launcher.client(), conversation, "first")
    answer = subprocess.run(launcher.printed("try"), check=True, capture_output=True, text=True)
    assert '"status":"completed"' in answer.stdout.replace(" ", "")
    assert "second" in say(launcher.client(), conversation, "second")


def test_the_printed_line_shows_the_stored_items(launcher: Launcher, conversation: str) -> None:
    query = f"select item->>'role' from items where conversation = '{conversation}' order by position"  # noqa: S608 - our own id
    command = [*launcher.printed("history"), "--no-psqlrc", "--tuples-only", "--no-align", "--command", query]

    def rows() -> list[str]:
        return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.split()

    wait_until_now(lambda: rows() == ["user", "assistant"] * 2, "four items in PostgreSQL")


def test_a_second_run_on_the_same_folder_is_refused(launcher: Launcher, conversation: str) -> None:  # noqa: ARG001
    refused = launcher.run()
    assert refused.returncode == 1
    assert f"already running on {launcher.data} (process {launcher.process.pid})" in refused.stdout


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_dies_is_started_again(launcher: Launcher, conversation: str, name: str) -> None:
    before = launcher.part(name)
    before.kill()
    wait_until_now(lambda: f"{name} runs again" in launcher.output, f"the restart of {name}", 30)
    assert f"{name} was ended by SIGKILL; starting it again" in launcher.output
    assert launcher.part(name).pid != before.pid
    assert name in say(launcher.client(), conversation, f"after the end of {name}")


def test_ctrl_c_ends_every_part_and_the_next_start_knows_all(launcher: Launcher, conversation: str) -> None:
    say(launcher.client(), conversation, "before Ctrl-C")
    known = texts(launcher.client(), conversation)
    assert known
    processes = launcher.parts()
    launcher.press_ctrl_c()
    assert launcher.wait() == 0
    assert launcher.output.endswith("stopped\n")
    assert not [process for process in processes if runs(process)]
    launcher.start()
    assert texts(launcher.client(), conversation) == known


def test_nothing_outlives_a_killed_launcher(launcher: Launcher, conversation: str) -> None:
    say(launcher.client(), conversation, "before the kill")
    known = texts(launcher.client(), conversation)
    processes = launcher.parts()
    launcher.kill()
    wait_until_now(lambda: not [process for process in processes if runs(process)], "the end of all parts")
    launcher.start()
    assert texts(launcher.client(), conversation) == known
    assert launcher.terminate() == 0


def test_a_second_ctrl_c_kills_what_does_not_stop(launcher: Launcher) -> None:
    launcher.start()
    processes = launcher.parts()
    launcher.part("api").suspend()
    launcher.press_ctrl_c()
    wait_until_now(lambda: "stopping api" in launcher.output, "the stop")
    launcher.press_ctrl_c()
    assert launcher.wait() == 130
    assert not [process for process in processes if runs(process)]


def test_what_a_killed_run_left_behind_is_ended(launcher: Launcher) -> None:
    """Where the kernel does not do it; and never a stranger that has got the process's number since."""
    (launcher.data / "logs").mkdir(parents=True, exist_ok=True)
    for name, error_seconds, ends in (("api", 0.0, True), ("worker", -100.0, False)):
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
            started = psutil.Process(process.pid).create_time() + error_seconds
            (launcher.data / "logs" / f"{name}.pid").write_text(f"{process.pid} {started}\n", encoding="utf-8")
            output = launcher.run(PORT="x").stdout
            assert (process.poll() is not None) == ends
            assert (f"had left behind: {name}" in output) == ends


def test_wrong_settings_are_told_together(launcher: Launcher) -> None:
    refused = launcher.run(PORT="x", HEALTH_PORT="0", LOG_LEVEL="loud", AUTH="key")
    assert refused.returncode == 2
    for name in ("PORT", "HEALTH_PORT", "LOG_LEVEL", "API_KEY"):
        assert refused.stderr.count(f"  {name}") == 1


def test_the_file_env_is_read_below_the_environment(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# LOG_LEVEL=loud\nMODEL=any\nBATCH_ENTRIES=0\nPORT=y\n", encoding="utf-8")
    refused = launcher.run(tmp_path, PORT="x")
    assert refused.stderr.splitlines()[1:] == [
        "  PORT='x' must be a whole number from 1 to 65535",
        "  BATCH_ENTRIES='0' must be a whole number from 1 to 5000",
    ]


def test_other_stores_and_a_key(launcher: Launcher, valkey: Part, postgres: Postgres, database: str) -> None:
    stores = {"REDIS_HOST": valkey.host, "REDIS_PORT": str(valkey.port)}
    stores |= {"PG_HOST": postgres.host, "PG_PORT": str(postgres.port), "PG_DATABASE": database}
    launcher.start(**stores, API_KEY="secret")
    with pytest.raises(AuthenticationError):
        launcher.client("wrong").models.list()
    client = launcher.client("secret")
    assert say(client, client.conversations.create().id, "hello") == "hello"
    assert "secret" not in launcher.output
    assert launcher.terminate() == 0
    assert "stopping api, worker (" in launcher.output


def test_a_taken_port_is_named(launcher: Launcher) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        refused = launcher.run(PORT=str(port))
    assert refused.returncode == 1
    assert f"port {port} is in use" in refused.stdout
