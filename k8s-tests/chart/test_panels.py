"""What panels show of series that promtool is given: of the cluster's, whose labels Prometheus honours or does not, and
of the cost of a turn."""

import re
from pathlib import Path

import pytest
import yaml

from chart.monitoring import CHOSEN, FOREIGN, Json, Panel, all_panels, chosen, metrics_in
from chart.test_rules import promtool

PRICES = {"price_input": 1, "price_cached": 1, "price_cache_written": 1, "price_output": 10}
MINUTES = 10
TIME = f"{MINUTES}m"
# Of whom a cluster tells: the chosen release, another one in its namespace, one elsewhere, and somebody else's workers.
RELEASES = [("chat", "a"), ("chat", "b"), ("talk", "a")]
OTHERS = ("else", "x")
PANELS = {(panel.dashboard, panel.title): panel for panel in all_panels()}
OF_THE_CLUSTER = [
    (panel, expression)
    for panel in PANELS.values()
    for expression in panel.expressions
    if any(name.startswith(FOREIGN) for name in metrics_in(expression))
]


def shown(expression: str, series: dict[str, str], samples: list[Json], folder: Path) -> None:
    """Fail with promtool's words unless these are the samples at the end."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": TIME, "exp_samples": samples}],
    }
    path = folder / "panel.yaml"
    path.write_text(yaml.safe_dump({"tests": [test]}), encoding="utf-8")
    promtool("test", "rules", path)


def owned_by(namespace: str, *, honoured: bool) -> str:
    return f'namespace="{namespace}"' if honoured else f'namespace="monitoring", exported_namespace="{namespace}"'


@pytest.mark.parametrize("honoured", [True, False], ids=["honoured", "renamed"])
@pytest.mark.parametrize(
    ("panel", "expression"),
    OF_THE_CLUSTER,
    ids=[f"{panel.title}-{number}" for number, (panel, _) in enumerate(OF_THE_CLUSTER)],
)
def test_a_panel_shows_what_the_cluster_tells_of_the_chosen_namespace(
    panel: Panel, expression: str, honoured: bool, tmp_path: Path
) -> None:
    (name,) = (one for one in metrics_in(expression) if one.startswith(FOREIGN))
    series = {
        f'chatbot_build_info{{namespace="{namespace}", release="{release}", pod="{pod}"}}': f"1x{MINUTES}"
        for namespace, release in RELEASES
        for pod in ("api-0", "api-1")
    }
    key, prefix = ("horizontalpodautoscaler", "keda-hpa-") if name.startswith("kube_") else ("scaledObject", "")
    for namespace, release in [*RELEASES, OTHERS]:
        owner = owned_by(namespace, honoured=honoured)
        series[f'{name}{{{owner}, {key}="{prefix}{release}-worker"}}'] = f"60+60x{MINUTES}"
    value = 1 if "rate(" in expression else 60 * (MINUTES + 1)
    labels = [f'{{namespace="chat", {key}="{prefix}{release}-worker"}}' for release in ("a", "b")]
    asked = chosen(expression, {**CHOSEN, "namespace": "chat", "release": "a", "__rate_interval": "5m"})
    shown(asked, series, [{"labels": one, "value": value} for one in labels], tmp_path)
    # Each is told by its name, so the legend must have it.
    targets = [target for target in panel.body["targets"] if target["expr"] == expression]
    assert all(re.search(rf"{{{{{key}}}}}", target["legendFormat"]) for target in targets)


@pytest.mark.parametrize("model", [".*", "small"])
def test_the_cost_of_a_turn_is_that_of_all_models_whichever_is_chosen(model: str, tmp_path: Path) -> None:
    """Turns are not counted by model."""
    (expression,) = PANELS["models", "Cost of a turn"].expressions
    of = 'namespace="chat", release="a"'
    series = {
        f'chatbot_tokens_total{{{of}, model="small", kind="input"}}': f"0+1000000x{MINUTES}",
        f'chatbot_tokens_total{{{of}, model="large", kind="output"}}': f"0+1000000x{MINUTES}",
        f'chatbot_turns_total{{{of}, status="completed"}}': f"0+3x{MINUTES}",
        f'chatbot_turns_total{{{of}, status="failed"}}': f"0+1x{MINUTES}",
    }
    asked = chosen(expression, {**PRICES, "model": model, "__range": "5m"})
    shown(asked, series, [{"labels": "{}", "value": (1 + 10) / 4}], tmp_path)
