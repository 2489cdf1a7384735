"""The chart's dashboards and rules as tests read them: panels, expressions, and the metrics that these name."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
FILES = Path(__file__).parents[2] / "charts" / "chatbot" / "files"
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
RULES = sorted((FILES / "rules").glob("*.yaml"))
# What Grafana puts in: the variables with "All" chosen, and an interval that a test of seconds can fill.
CHOSEN = {
    "namespace": ".*",
    "release": ".*",
    "tenant": ".*",
    "__rate_interval": "10s",
    "__range": "1m",
    "__interval": "1s",
}
# Metrics that come from elsewhere: kube-state-metrics and KEDA's operator.
FOREIGN = ("kube_", "keda_")
PROMETHEUS = ("ALERTS",)
RECORDED = "chatbot:"
# The parts of a dashboard that are lists, and which keys of a panel share a line.
LISTS = ("links", "templating", "panels")
PANEL_LINES = (
    ("id", "type", "title", "gridPos", "collapsed", "panels"),
    ("description",),
    ("datasource", "fieldConfig"),
    ("options",),
)
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right", "inf"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of a dashboard that shows something; rows show nothing."""

    dashboard: str
    title: str
    body: Json

    @property
    def expressions(self) -> list[str]:
        return [target["expr"] for target in self.body["targets"]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule (`name` has colons) or an alert."""

    file: str
    name: str
    body: Json

    @property
    def is_alert(self) -> bool:
        return "alert" in self.body

    @property
    def expression(self) -> str:
        return str(self.body["expr"])


def dashboard_of(path: Path) -> Json:
    read: Json = json.loads(path.read_text(encoding="utf-8"))
    return read


def panels_of(path: Path) -> Iterator[Panel]:
    for body in dashboard_of(path)["panels"]:
        if body["type"] != "row":
            yield Panel(path.stem, body["title"], body)


def all_panels() -> list[Panel]:
    return [panel for path in DASHBOARDS for panel in panels_of(path)]


def all_rules() -> list[Rule]:
    return [
        Rule(path.name, rule.get("alert") or rule["record"], rule)
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def all_alerts() -> list[Rule]:
    return [rule for rule in all_rules() if rule.is_alert]


def chosen(expression: str, values: Json | None = None) -> str:
    """The expression with Grafana's variables filled in; KeyError for one that nobody defines. `$1` is none."""
    known = {**CHOSEN, **(values or {})}
    return re.sub(r"\$\{?([a-z_]\w*)\}?", lambda found: str(known[found[1]]), expression)


def constants_of(dashboard: Json) -> Json:
    """The dashboard's own variables that a person types in, such as prices, with their defaults."""
    typed = [one for one in dashboard["templating"]["list"] if one["type"] == "textbox"]
    return {one["name"]: one["query"] for one in typed}


def metrics_in(expression: str) -> set[str]:
    """The names of the metrics that an expression asks for."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\$\{?\w+\}?", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\w+", " ", bare)
    names = re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", bare)
    return {name for name in names if name.lower() not in WORDS}


def laid_out(dashboard: Json) -> str:
    """A dashboard as its file has it: short enough to be read, a line for each thing that one would change."""
    lines = [f"  {dump(name)}: {dump(value)}," for name, value in dashboard.items() if name not in LISTS]
    for name in LISTS:
        inner, key = (
            (dashboard[name], "") if isinstance(dashboard[name], list) else (dashboard[name]["list"], '{"list": ')
        )
        rows = [f"    {dump(one)}" if name != "panels" else _panel(one) for one in inner]
        lines.append(f"  {dump(name)}: {key}[\n" + ",\n".join(rows) + "\n  ]" + ("}" if key else "") + ",")
    return "{\n" + "\n".join(lines).removesuffix(",") + "\n}\n"


def _panel(panel: Json) -> str:
    lines = [", ".join(f"{dump(key)}: {dump(panel[key])}" for key in keys if key in panel) for keys in PANEL_LINES]
    if "targets" in panel:
        lines.append('"targets": [\n       ' + ",\n       ".join(map(dump, panel["targets"])) + "]")
    assert not panel.keys() - {"targets", *itertools.chain(*PANEL_LINES)}, panel.keys()
    return "    {" + ",\n     ".join(filter(None, lines)) + "}"


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    for path in DASHBOARDS:
        path.write_text(laid_out(dashboard_of(path)), encoding="utf-8")
