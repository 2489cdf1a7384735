"""What the monitoring of a cluster finds: scrapes, dashboards, rules. What is in the latter two is tested elsewhere."""

import json

import pytest
import yaml

from chart.network import selected
from chart.rendering import CHART, Object, Rendered, at, containers, labels, render

SERVICE_MONITOR, POD_MONITOR = at("monitoring.serviceMonitor.enabled", True), at("monitoring.podMonitor.enabled", True)
DASHBOARDS, RULES = at("monitoring.dashboards.enabled", True), at("monitoring.prometheusRule.enabled", True)
SCRAPED = {("api", 9090), ("worker", 9091)}


def port_of(pod: Object, name: str) -> int:
    (port,) = (
        port["containerPort"] for one in containers(pod) for port in one.get("ports", []) if port["name"] == name
    )
    number: int = port
    return number


def pods_of(rendered: Rendered, selector: Object) -> list[Object]:
    return [pod for _, pod in rendered.pods() if selector["matchLabels"].items() <= labels(pod).items()]


def test_service_monitors_lead_to_the_metrics_of_api_and_worker() -> None:
    rendered = render(SERVICE_MONITOR)
    scraped = set()
    for monitor in rendered.of("ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["path"] == "/metrics"
            for service in rendered.of("Service"):
                if not selected(monitor["spec"]["selector"], labels(service)):
                    continue
                for port in service["spec"]["ports"]:
                    if port["name"] == endpoint["port"]:
                        (pod,) = pods_of(rendered, {"matchLabels": service["spec"]["selector"]})
                        scraped.add((labels(pod)["app.kubernetes.io/component"], port_of(pod, port["targetPort"])))
    assert scraped == SCRAPED


def test_a_pod_monitor_leads_to_the_metrics_of_api_and_worker() -> None:
    rendered = render(POD_MONITOR)
    scraped = set()
    for monitor in rendered.of("PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["path"] == "/metrics"
            for _, pod in rendered.pods():
                ports = {port["name"] for one in containers(pod) for port in one.get("ports", [])}
                if selected(monitor["spec"]["selector"], labels(pod)) and endpoint["port"] in ports:
                    scraped.add((labels(pod)["app.kubernetes.io/component"], port_of(pod, endpoint["port"])))
    assert scraped == SCRAPED


@pytest.mark.parametrize(
    ("values", "kind", "endpoints"),
    [
        (SERVICE_MONITOR, "ServiceMonitor", "endpoints"),
        (POD_MONITOR, "PodMonitor", "podMetricsEndpoints"),
    ],
)
def test_what_is_scraped_tells_its_release(values: Object, kind: str, endpoints: str) -> None:
    """By the label that rules and dashboards tell two releases of a namespace apart by."""
    for monitor in render(values, name="7").of(kind):
        (endpoint,) = monitor["spec"][endpoints]
        assert endpoint["relabelings"] == [{"targetLabel": "release", "replacement": "7"}]


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor", "prometheusRule"])
def test_prometheus_finds_them_by_labels_of_the_users_choice(kind: str) -> None:
    rendered = render({"monitoring": {kind: {"enabled": True, "labels": {"release": "prom"}}}})
    found = rendered.of(kind[0].upper() + kind[1:])
    assert found
    assert all(labels(one)["release"] == "prom" for one in found)


def test_each_dashboard_is_a_config_map_that_grafana_finds() -> None:
    files = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in (CHART / "files" / "dashboards").glob("*.json")
    }
    assert files
    shown = [found for found in render(DASHBOARDS).of("ConfigMap") if labels(found).get("grafana_dashboard") == "1"]
    assert {name: json.loads(text) for found in shown for name, text in found["data"].items()} == files
    assert not [found for found in render().of("ConfigMap") if "grafana_dashboard" in labels(found)]


def test_the_rules_are_those_of_the_files_word_for_word() -> None:
    """Helm's templates must not touch the braces of Prometheus's own."""
    files = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CHART / "files" / "rules").glob("*.yaml"))
    ]
    wanted = [group for file in files if "groups" in file for group in file["groups"]]
    assert wanted
    found = [group for one in render(RULES).of("PrometheusRule") for group in one["spec"]["groups"]]
    assert sorted(found, key=lambda group: group["name"]) == sorted(wanted, key=lambda group: group["name"])
    assert render().of("PrometheusRule") == []


def test_an_alert_leads_to_where_the_runbook_is() -> None:
    where = at("monitoring.prometheusRule.runbookUrl", "https://wiki.example.org/chat-runbook")
    groups = [group for one in render(RULES, where).of("PrometheusRule") for group in one["spec"]["groups"]]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        wanted = f"https://wiki.example.org/chat-runbook#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == wanted
