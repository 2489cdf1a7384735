"""The two images as they run: who they are, what is in them, and how soon they serve. No store is there."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest

from cluster import image_look
from cluster.images import Image, Images
from cluster.kube import Json, Namespace
from cluster.telling import figures, measured

PARTS = ("api", "worker")
PORTS = {"api": 4000, "worker": 9091}
USER = 10001
WEB = set(image_look.WEB)
# What our own packages and code may take, with their byte code; the base comes on top.
MOST_MEGABYTES = {"api": 85, "worker": 50}
# On two cores that do something else too.
START_SECONDS = 10.0
LOG_LINES = 1000


@pytest.fixture(scope="module")
async def seen(new_namespace: Callable[[str], Awaitable[Namespace]], images: Images) -> dict[str, Json]:
    """What each image says of itself, from a pod that is as strict as the chart's."""
    namespace = await new_namespace("images")
    chosen = {"api": images.api, "worker": images.worker}
    await namespace.create_objects(*(_pod(part, image) for part, image in chosen.items()))
    source = Path(image_look.__file__).read_text(encoding="utf-8")
    found: dict[str, Json] = {}
    for part in chosen:
        await namespace.ready_pod(part)
        found[part] = json.loads(await namespace.execute(part, "python", "-c", source, part))
        first = json.loads((await namespace.logs(part, LOG_LINES)).splitlines()[0])
        found[part]["start_seconds"] = datetime.fromisoformat(first["time"]).timestamp() - found[part]["started_at"]
        measured(f"the image of the {part}, from its start to its first line", found[part]["start_seconds"])
        size = found[part]["megabytes"]
        figures[f"the image of the {part}, whole and without its base"] = f"{size['all']} MB, {size['ours']} MB"
    return found


def _pod(part: str, image: Image) -> Json:
    container: Json = {
        "name": part,
        "image": image.name,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "AUTH", "value": "none"}],
        "readinessProbe": {"httpGet": {"path": "/livez", "port": PORTS[part]}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    # No user is named: the image's own must do, and `runAsNonRoot` refuses one that is no number. The group is root's
    # then, so what root's group may write counts too.
    spec: Json = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": spec}


@pytest.mark.parametrize("part", PARTS)
def test_it_is_nobody_and_owns_nothing(seen: dict[str, Json], part: str) -> None:
    assert seen[part]["user"] == USER
    assert {int(word, 16) for word in seen[part]["capabilities"]} == {0}
    assert seen[part]["changeable"] == []
    assert seen[part]["refuses_writes"]


@pytest.mark.parametrize("part", PARTS)
def test_its_own_process_is_the_first(seen: dict[str, Json], part: str) -> None:
    assert seen[part]["command"] == ["python", "-m", part], "a shell in front would keep SIGTERM to itself"


@pytest.mark.parametrize("part", PARTS)
def test_it_holds_its_own_code_and_no_tool(seen: dict[str, Json], part: str) -> None:
    assert set(seen[part]["modules"]) - WEB == {part, "core"}
    assert seen[part]["programs"] == []
    assert seen[part]["python"] == "3.13"


def test_only_the_api_has_a_web_framework(seen: dict[str, Json]) -> None:
    assert set(seen["worker"]["modules"]) & WEB == set()
    assert set(seen["api"]["modules"]) >= WEB


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_compiled_at_each_start(seen: dict[str, Json], part: str) -> None:
    assert seen[part]["uncompiled"] == []


@pytest.mark.parametrize("part", PARTS)
def test_it_is_small_and_starts_soon(seen: dict[str, Json], part: str) -> None:
    assert seen[part]["megabytes"]["ours"] < MOST_MEGABYTES[part]
    assert 0 < seen[part]["start_seconds"] < START_SECONDS
