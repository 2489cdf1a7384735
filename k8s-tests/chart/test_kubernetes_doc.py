"""docs/kubernetes.md against the chart and the tree: what it tells people to type is there."""

import re

import pytest
import yaml

from chart.rendering import CHART, ROOT, at, documents, render

DOC = ROOT / "docs" / "kubernetes.md"
TEXT = DOC.read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]
RELEASE = "chat"


def is_value(name: str) -> bool:
    (place,) = documents((CHART / "values.yaml").read_text(encoding="utf-8"))
    for step in name.split("."):
        if not isinstance(place, dict) or step not in place:
            return False
        place = place[step]
    return True


def test_every_value_that_it_names_is_the_charts() -> None:
    set_here = re.findall(r"([A-Za-z.]+)=", " ".join(re.findall(r"--set(?:-file)? (\S+)", TEXT)))
    tops = "api|worker|redis|postgresql|networkPolicy|ingress|httpRoute|monitoring|telemetry|migration|test"
    named = re.findall(rf"`((?:{tops})\.[A-Za-z.]+)`", TEXT)
    assert len(set_here) > 5
    assert len(named) > 10
    assert [name for name in {*set_here, *named} if not is_value(name)] == []


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_its_values_render(block: str) -> None:
    assert not render(yaml.safe_load(block), name=RELEASE).of("StatefulSet")


def test_every_object_that_its_commands_name_is_rendered() -> None:
    rendered = render(at("worker.keda.enabled", value=True), name=RELEASE)
    there = {one["metadata"]["name"] for one in rendered.objects}
    there |= {f"{one['metadata']['name']}-0" for one in rendered.of("StatefulSet")}
    there |= {f"data-{one['metadata']['name']}-0" for one in rendered.of("StatefulSet")}
    named = {
        name for line in COMMANDS for name in re.findall(r"(?<![\w-])(?:data-)?chat-chatbot-\w+(?:-0)?(?![\w.-])", line)
    }
    assert len(named) > 5
    assert named <= there


def test_its_images_are_what_the_chart_pulls_by_default() -> None:
    (build,) = (line for line in COMMANDS if line.startswith("docker build"))
    (load,) = (line for line in COMMANDS if line.startswith("kind load"))
    for component, part in (("api", "api"), ("worker", "worker"), ("migrate", "worker")):
        image = render(name=RELEASE).pod(component)["spec"]["containers"][0]["image"]
        assert f"-t {image} -f Dockerfile.{part} ." in build
        assert image in load


def test_its_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", TEXT):
        file = (DOC.parent / target).resolve()
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
