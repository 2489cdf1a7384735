"""The rules, by Prometheus's own tool: they parse, and each alert fires when it should and not when it should not."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from chart.monitoring import RULES, Rule, all_alerts

TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
SECTIONS = ("**Means.**", "**Users see.**", "**Look.**", "**Mend.**", "**Over when.**")
each_alert = pytest.mark.parametrize("alert", all_alerts(), ids=lambda alert: alert.name)
# promtool evaluates days in well under a second each.
TOOL_SECONDS = 60


def promtool(*arguments: str | Path) -> str:
    program = shutil.which("promtool")
    assert program is not None, "there is no promtool on this machine: apt install prometheus"
    command = [program, *map(str, arguments)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TOOL_SECONDS)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_rules_parse() -> None:
    assert promtool("check", "rules", *RULES).count("SUCCESS") == len(RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_they_should(path: Path) -> None:
    promtool("test", "rules", path)


def test_each_alert_is_seen_firing_and_not_firing() -> None:
    seen: dict[str, set[bool]] = defaultdict(set)
    for path in TESTS:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for case in group.get("alert_rule_test", []):
                seen[case["alertname"]].add(bool(case.get("exp_alerts")))
    assert seen == {alert.name: {True, False} for alert in all_alerts()}


@each_alert
def test_an_alert_says_what_to_do(alert: Rule) -> None:
    body = alert.body
    assert alert.name.startswith("Chatbot")
    assert body["labels"] == {"severity": body["labels"]["severity"]}
    assert body["labels"]["severity"] in {"critical", "warning"}
    notes = body["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert not notes["summary"].endswith(".")
    assert "{{" not in notes["summary"]
    assert notes["description"].endswith(".")
    assert "$labels.namespace" in notes["description"]
    assert notes["runbook_url"] == f"docs/runbook.md#{alert.name.lower()}"


@each_alert
def test_an_alert_has_its_section_in_the_runbook(alert: Rule) -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    _, found, section = text.partition(f"\n## {alert.name}\n")
    assert found, f"no section {alert.name}"
    section = section.partition("\n## ")[0]
    assert [part for part in SECTIONS if part not in section] == []
    assert "`" in section or "    " in section, "no command"


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    headings = [line[3:] for line in RUNBOOK.read_text(encoding="utf-8").splitlines() if line.startswith("## Chatbot")]
    assert sorted(headings) == sorted(alert.name for alert in all_alerts())
