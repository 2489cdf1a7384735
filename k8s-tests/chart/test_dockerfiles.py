"""What the Dockerfiles and .dockerignore say, without a build; cluster/test_images.py runs what they make."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from api.settings import read_settings
from core.settings import Environment
from local.parts import ROOT
from worker.settings import read

BASE = "docker.io/library/python:3.13-slim-trixie"
PARTS = ("api", "worker")
PORTS = {
    "api": {
        read_settings(Environment({"AUTH": "none"})).port,
        read_settings(Environment({"AUTH": "none"})).metrics_port,
    },
    "worker": {read(Environment({})).health_port},
}
WEB = {"aiohttp", "fastapi", "httptools", "pydantic", "starlette", "uvicorn", "websockets"}


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile: `options` are its words that begin with `--`."""

    name: str
    options: list[str]
    rest: str


@dataclass(frozen=True)
class Stage:
    name: str
    origin: str
    steps: list[Step]

    def all(self, name: str) -> list[Step]:
        return [step for step in self.steps if step.name == name]

    def only(self, name: str) -> str:
        (step,) = self.all(name)
        return step.rest


def stages(part: str) -> list[Stage]:
    text = (ROOT / f"Dockerfile.{part}").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    found: list[Stage] = []
    for line in filter(str.strip, lines):
        name, *words = line.split()
        if name == "FROM":
            origin, _, alias = " ".join(words).partition(" AS ")
            found.append(Stage(alias, origin, []))
        else:
            options = [word for word in words if word.startswith("--")] if name == "COPY" else []
            rest = " ".join(word for word in words if word not in options)
            found[-1].steps.append(Step(name, options, rest))
    return found


def stage(part: str, name: str) -> Stage:
    return next(stage for stage in stages(part) if stage.name == name)


def copied(part: str) -> Iterator[PurePosixPath]:
    """What is copied from the build's context, and not from another stage."""
    for found in stages(part):
        for step in found.all("COPY"):
            if not any(option.startswith("--from=") for option in step.options):
                yield from map(PurePosixPath, step.rest.split()[:-1])


def allowed() -> list[PurePosixPath]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [PurePosixPath(line[1:]) for line in lines if line.startswith("!")]


def packages(part: str) -> set[str]:
    text = (ROOT / "requirements" / f"{part}.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


@pytest.mark.parametrize("part", PARTS)
def test_all_stages_stand_on_one_base_with_a_tag(part: str) -> None:
    names = [found.name for found in stages(part)]
    for index, found in enumerate(stages(part)):
        assert found.origin == BASE or found.origin in names[:index]
    assert sum(found.origin == BASE for found in stages(part)) == 1


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_fetched_but_the_locked_packages(part: str) -> None:
    text = (ROOT / f"Dockerfile.{part}").read_text(encoding="utf-8")
    assert not re.search(r"://|\b(curl|wget|apt|apt-get|git)\b|--(extra-)?index-url|^ADD", text, re.MULTILINE)
    assert f"requirements/{part}.txt /tmp/requirements.txt" in [step.rest for step in stage(part, "environment").steps]
    installs = [step.rest for found in stages(part) for step in found.all("RUN") if " install " in step.rest]
    assert len(installs) == 1
    assert "--require-hashes -r /tmp/requirements.txt" in installs[0]


def test_the_locks_hold_nothing_of_the_other_process() -> None:
    assert packages("worker") & WEB == set()
    assert packages("api") >= WEB - {"starlette"}
    for part in PARTS:
        assert packages(part) & {"pip", "setuptools", "wheel", "uv", "openai", "pytest"} == set()


@pytest.mark.parametrize("part", PARTS)
def test_only_its_own_code(part: str) -> None:
    last = stages(part)[-1]
    assert {step.rest for step in last.all("COPY")} == {"/opt/venv /opt/venv", "/app /app"}
    assert all(step.options == ["--from=compiled"] for step in last.all("COPY")), "and all of it owned by root"
    assert {step.rest for step in stage(part, "compiled").all("COPY")} == {"core core", f"{part} {part}"}
    assert "compileall" in stage(part, "compiled").only("RUN")


@pytest.mark.parametrize("part", PARTS)
def test_it_runs_as_a_number_that_owns_nothing(part: str) -> None:
    last = stages(part)[-1]
    user, group = map(int, last.only("USER").split(":"))
    assert (user, group) == (10001, 10001)
    after = [step.name for step in last.steps[last.steps.index(last.all("USER")[0]) + 1 :]]
    assert after == ["EXPOSE", "ENTRYPOINT"]
    assert json.loads(last.only("ENTRYPOINT")) == ["python", "-m", part]
    assert set(map(int, last.only("EXPOSE").split())) == PORTS[part]


@pytest.mark.parametrize("part", PARTS)
def test_labels(part: str) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', stages(part)[-1].only("LABEL")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert labels["version"] == project["version"]
    assert labels["title"] == f"{project['name']}-{part}"
    assert labels["base.name"] == BASE
    assert labels["description"]


@pytest.mark.parametrize("part", PARTS)
def test_what_is_developed_can_be_written_by_its_user(part: str) -> None:
    dev = stage(part, "dev")
    for step in dev.all("COPY"):
        assert step.options in (["--from=environment"], ["--chown=10001:10001"])
    assert {step.rest for step in dev.all("COPY")} == {
        "/opt/venv /opt/venv",
        "local local",
        "core core",
        f"{part} {part}",
    }
    assert dev.only("USER") == "10001:10001"
    assert json.loads(dev.only("ENTRYPOINT")) == ["python", "-m", "local.reload", part]
    assert not any("compileall" in step.rest for step in dev.all("RUN")), "byte code that is never compared again"


def test_a_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    exceptions = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert rules[-len(exceptions) :] == exceptions == ["**/__pycache__", "**/.*"], "the last rule that fits decides"
    sources = {source for part in PARTS for source in copied(part)}
    assert all((ROOT / path).exists() for path in (*allowed(), *sources))
    for path in allowed():
        assert any(path.is_relative_to(source) for source in sources), f"nobody copies {path}"
    for source in sources:
        assert any(path.is_relative_to(source) or source.is_relative_to(path) for path in allowed()), source
