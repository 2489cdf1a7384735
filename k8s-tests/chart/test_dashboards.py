"""The dashboards' shape: whole, readable, alike. tests/test_monitoring.py asks a real Prometheus for what they show."""

import itertools
import re
from pathlib import Path

import pytest

from chart.monitoring import (
    DASHBOARDS,
    FOREIGN,
    PROMETHEUS,
    RECORDED,
    Json,
    Panel,
    all_panels,
    all_rules,
    chosen,
    constants_of,
    dashboard_of,
    laid_out,
    metrics_in,
)

SCHEMA_VERSION = 39  # Grafana 11's; newer ones migrate it by themselves
NAMES = {"overview", "api", "queue", "models", "stores"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
# Of Grafana's units, those that our metrics have.
UNITS = {"bytes", "currencyUSD", "ops", "percentunit", "reqps", "s", "short"}
KINDS = {"stat", "table", "timeseries"}
each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
each_panel = pytest.mark.parametrize("panel", all_panels(), ids=lambda panel: f"{panel.dashboard}-{panel.title}")


def test_which_there_are() -> None:
    assert {path.stem for path in DASHBOARDS} == NAMES
    boards = [dashboard_of(path) for path in DASHBOARDS]
    assert {board["uid"] for board in boards} == {f"chatbot-{name}" for name in NAMES}
    assert len({board["title"] for board in boards}) == len(NAMES)


@each_dashboard
def test_its_frame(path: Path) -> None:
    board = dashboard_of(path)
    assert (board["schemaVersion"], board["tags"]) == (SCHEMA_VERSION, ["chatbot"])
    assert board["title"].startswith("Chatbot / ")
    assert board["description"].endswith(".")
    assert "id" not in board, "Grafana gives it one; an exported one would overwrite another dashboard"
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert list(variables)[:4] == ["datasource", "namespace", "release", "tenant"]
    assert variables["datasource"]["query"] == "prometheus"
    for one in variables.values():
        assert one["type"] != "query" or (one["datasource"], one["allValue"]) == (SOURCE, ".*")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@each_dashboard
def test_no_panel_covers_another(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard_of(path)["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= COLUMNS
        columns = range(grid["x"], grid["x"] + grid["w"])
        cells = set(itertools.product(columns, range(grid["y"], grid["y"] + grid["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


@each_dashboard
def test_it_is_laid_out_to_be_read(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == laid_out(dashboard_of(path)), "python -m chart.monitoring lays it out"


@each_panel
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    body = panel.body
    assert body["type"] in KINDS
    assert body["title"]
    assert len(body["description"]) > len(body["title"])
    assert body["description"].endswith(".")
    assert body["datasource"] == SOURCE
    assert body["fieldConfig"]["defaults"]["unit"] in UNITS
    references = [target["refId"] for target in body["targets"]]
    assert len(set(references)) == len(references) > 0
    if len(references) > 1:
        legends = [target["legendFormat"] for target in body["targets"]]
        assert all(legends), "who has several lines names each"


@each_panel
def test_a_panel_asks_for_what_was_chosen(panel: Panel) -> None:
    """Each selector holds namespace and release, but for metrics of the cluster (test_panels.py looks at those); no
    variable is used that the dashboard lacks."""
    path = next(path for path in DASHBOARDS if path.stem == panel.dashboard)
    typed = constants_of(dashboard_of(path))
    for expression in panel.expressions:
        chosen(expression, {**typed, "model": ".*"})
        for name in metrics_in(expression):
            selectors = re.findall(rf"(?<![\w:]){name}(\{{[^}}]*\}}|)", expression)
            if name.startswith(FOREIGN):
                continue
            assert all('namespace=~"$namespace"' in one for one in selectors), f"{name} in {expression}"
            if not name.startswith(PROMETHEUS):
                assert all('release=~"$release"' in one for one in selectors), f"{name} in {expression}"
            if name.startswith("chatbot_tenant_"):
                assert all('tenant=~"$tenant"' in one for one in selectors), f"{name} in {expression}"


def test_titles_are_unique_within_a_dashboard() -> None:
    titles = [(panel.dashboard, panel.title) for panel in all_panels()]
    assert len(set(titles)) == len(titles)


def test_what_is_recorded_is_recorded_by_a_rule() -> None:
    recorded = {rule.name for rule in all_rules() if not rule.is_alert}
    asked = [
        *(text for panel in all_panels() for text in panel.expressions),
        *(rule.expression for rule in all_rules()),
    ]
    used = {name for text in asked for name in metrics_in(text)}
    assert {name for name in used if name.startswith(RECORDED)} <= recorded
    assert recorded - used == set(), "recorded, and used by nobody"
    known = (*FOREIGN, *PROMETHEUS, RECORDED, "chatbot_", "process_")
    assert {name for name in used if not name.startswith(known)} == set()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(a_total{b="c_d{}", e=~"f"}[5m])) or vector(0)', {"a_total"}),
        ("a:b > 0 unless on (n) max by (n, m) (c_d offset 1h) * 1e6", {"a:b", "c_d"}),
        ("$price * sum(x_y{k='v'}) and on (p) z", {"x_y", "z"}),
    ],
)
def test_the_names_in_an_expression(expression: str, names: set[str]) -> None:
    assert metrics_in(expression) == names


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(KeyError):
        chosen("up{namespace='$other'}")


def test_a_layout_that_would_leave_something_out() -> None:
    board: Json = dashboard_of(DASHBOARDS[0])
    board["panels"][0]["surprise"] = 1
    with pytest.raises(AssertionError, match="surprise"):
        laid_out(board)
