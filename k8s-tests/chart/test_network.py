"""Who may reach whom in a cluster that enforces NetworkPolicies."""

import functools
import json
from dataclasses import replace

import pytest

from chart.network import NAMESPACE_LABEL, Network, Peer, of_release, pod_peer
from chart.rendering import NAMESPACE, VALUE_SETS, Object, at, labels, merged, render

KEDA = at("worker.keda.enabled", True)
OTLP = {"telemetry": {"otlpEndpoint": "http://collector.tracing:4318"}}
EXTERNAL: Object = {
    "redis": {"enabled": False, "external": {"host": "redis.example.org", "port": 6390}},
    "postgresql": {"enabled": False, "external": {"host": "pg.example.org", "port": 5433}},
}
INTERNET = Peer(None, "203.0.113.7")
DNS = Peer("kube-system", "10.244.9.53", {"k8s-app": "kube-dns"}, {"dns": 53, "dns-tcp": 53})
PROMETHEUS = Peer("monitoring", "10.244.9.1", {"app.kubernetes.io/name": "prometheus"})
OPERATOR = Peer("keda", "10.244.9.2", {"app": "keda-operator"})
COLLECTOR = Peer("tracing", "10.244.9.3", {"app": "collector"})
CLIENT = Peer("shop", "10.244.9.4", {"app": "shop"})
NEIGHBOUR = Peer(NAMESPACE, "10.244.9.5", {"app": "shop"})
OLLAMA = Peer("models", "10.244.9.6", {"app": "ollama"})
COMPONENTS = ("api", "worker", "migrate", "redis", "postgresql", "test")
API, METRICS, HEALTH, REDIS, POSTGRESQL = 4000, 9090, 9091, 6379, 5432
FROM_SHOP = at("networkPolicy.apiFrom", [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: "shop"}}}])
EXPORTER = at("networkPolicy.extraIngress.redis", [{"from": [{"podSelector": {"matchLabels": {"app": "shop"}}}]}])
STRANGERS = (
    "internet", "client", "neighbour", "prometheus",
    "foreign api", "foreign worker", "other api", "other worker", "other migrate",
)  # fmt: skip


class Cluster:
    """A release's pods by component, some others by name, and the policies between them."""

    def __init__(self, *values: Object) -> None:
        rendered = render(*values)
        self.peers = {
            "internet": INTERNET, "dns": DNS, "prometheus": PROMETHEUS, "keda": OPERATOR, "collector": COLLECTOR,
            "client": CLIENT, "neighbour": NEIGHBOUR, "ollama": OLLAMA,
        }  # fmt: skip
        for _, pod in rendered.pods():
            component = labels(pod)["app.kubernetes.io/component"]
            mine = pod_peer(pod, NAMESPACE)
            self.peers[component] = mine
            # The same labels elsewhere, and another release beside this one.
            self.peers[f"foreign {component}"] = replace(mine, namespace="elsewhere")
            self.peers[f"other {component}"] = replace(
                mine, labels={**mine.labels, "app.kubernetes.io/instance": "other-release"}
            )
        self._strict = of_release(rendered, NAMESPACE)
        self._loose = of_release(rendered, NAMESPACE, blocks_cover_pods=True)

    def passes(
        self, source: str, target: str, port: int, protocol: str = "TCP", network: Network | None = None
    ) -> bool:
        return (network or self._strict).passes(self.peers[source], self.peers[target], port, protocol)

    def never_passes(self, source: str, target: str, port: int) -> bool:
        return not any(self.passes(source, target, port, network=network) for network in (self._strict, self._loose))


@functools.cache
def _cluster(values: str) -> Cluster:
    return Cluster(*json.loads(values))


def cluster_of(values: list[Object]) -> Cluster:
    """Many pairs are asked about one cluster, which is then made once."""
    return _cluster(json.dumps(values))


ALLOWED: list[tuple[str, str, int, list[Object]]] = [
    ("api", "redis", REDIS, []),
    ("api", "postgresql", POSTGRESQL, []),
    ("worker", "redis", REDIS, []),
    ("worker", "postgresql", POSTGRESQL, []),
    ("migrate", "postgresql", POSTGRESQL, []),
    ("test", "api", API, []),
    # To see that what was said has arrived there.
    ("test", "postgresql", POSTGRESQL, []),
    ("client", "api", API, []),
    ("neighbour", "api", API, []),
    ("internet", "api", API, []),
    ("prometheus", "api", METRICS, []),
    ("prometheus", "worker", HEALTH, []),
    ("keda", "redis", REDIS, [KEDA]),
    ("api", "internet", 443, []),
    ("api", "internet", 443, [at("api.upstream.apiKey", "k")]),
    ("api", "internet", 8443, [at("api.upstream.baseUrl", "https://models.example.org:8443/v1")]),
    ("api", "ollama", 11434, [at("api.upstream.baseUrl", "http://ollama.models:11434/v1")]),
    ("api", "internet", 80, [at("api.upstream.baseUrl", "http://models.example.org/v1")]),
    ("api", "ollama", 8080, [at("networkPolicy.upstreamPorts", [8080])]),
    ("api", "collector", 4318, [OTLP]),
    ("worker", "collector", 4318, [OTLP]),
    ("api", "internet", 6390, [EXTERNAL]),
    ("worker", "internet", 6390, [EXTERNAL]),
    ("api", "internet", 5433, [EXTERNAL]),
    ("worker", "internet", 5433, [EXTERNAL]),
    ("migrate", "internet", 5433, [EXTERNAL]),
    ("client", "api", API, [FROM_SHOP]),
    ("test", "api", API, [FROM_SHOP]),
    ("neighbour", "redis", REDIS, [EXPORTER]),
]  # fmt: skip
FORBIDDEN: list[tuple[str, str, int, list[Object]]] = [
    *((stranger, store, port, [KEDA, OTLP])
      for stranger in STRANGERS
      for store, port in (("redis", REDIS), ("postgresql", POSTGRESQL))),
    ("migrate", "redis", REDIS, []),
    ("test", "redis", REDIS, []),
    ("foreign test", "postgresql", POSTGRESQL, []),
    ("other test", "postgresql", POSTGRESQL, []),
    ("keda", "redis", REDIS, []),
    ("keda", "postgresql", POSTGRESQL, [KEDA]),
    ("keda", "worker", HEALTH, [KEDA]),
    ("keda", "api", METRICS, [KEDA]),
    ("client", "api", METRICS, []),
    ("neighbour", "api", METRICS, []),
    ("client", "api", 5555, []),
    ("prometheus", "api", 5555, []),
    ("prometheus", "worker", 5555, []),
    ("client", "worker", HEALTH, []),
    ("neighbour", "worker", HEALTH, []),
    ("api", "worker", HEALTH, []),
    ("client", "migrate", API, []),
    ("neighbour", "test", API, []),
    ("api", "internet", 25, []),
    ("worker", "internet", 443, []),
    ("migrate", "internet", 443, []),
    ("test", "internet", 443, []),
    ("redis", "internet", 443, []),
    ("redis", "postgresql", POSTGRESQL, []),
    ("redis", "api", API, []),
    ("postgresql", "internet", 443, []),
    ("postgresql", "redis", REDIS, []),
    ("worker", "collector", 4318, []),
    ("worker", "api", API, []),
    ("api", "internet", 6379, [EXTERNAL]),
    ("worker", "internet", 5432, [EXTERNAL]),
    ("internet", "api", API, [FROM_SHOP]),
    ("neighbour", "api", API, [FROM_SHOP]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "port", "values"), ALLOWED)
def test_what_must_flow_flows(source: str, target: str, port: int, values: list[Object]) -> None:
    assert cluster_of(values).passes(source, target, port)


@pytest.mark.parametrize(("source", "target", "port", "values"), FORBIDDEN)
def test_what_must_not_flow_is_cut(source: str, target: str, port: int, values: list[Object]) -> None:
    assert cluster_of(values).never_passes(source, target, port)


@pytest.mark.parametrize("source", ["api", "worker", "migrate", "test"])
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_whoever_looks_up_names_reaches_dns(source: str, protocol: str) -> None:
    assert cluster_of([]).passes(source, "dns", 53, protocol)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_held_in_both_directions(name: str) -> None:
    rendered = render(VALUE_SETS[name], at("networkPolicy.enabled", True))
    for owner, pod in rendered.pods():
        mine = pod_peer(pod, NAMESPACE)
        network = of_release(rendered, NAMESPACE)
        assert not network.passes(NEIGHBOUR, mine, 1), f"anything reaches {owner}"
        assert not network.passes(mine, NEIGHBOUR, 1), f"{owner} reaches anything"


def test_policies_are_there_by_default_and_go_with_one_value() -> None:
    assert render().of("NetworkPolicy")
    assert render(at("networkPolicy.enabled", False)).of("NetworkPolicy") == []


def test_the_namespaces_of_prometheus_and_keda_are_values() -> None:
    cluster = Cluster(merged(KEDA, {"networkPolicy": {"monitoringNamespace": "shop", "kedaNamespace": "models"}}))
    assert cluster.passes("client", "api", METRICS)
    assert cluster.passes("client", "worker", HEALTH)
    assert cluster.passes("ollama", "redis", REDIS)
    assert cluster.never_passes("prometheus", "api", METRICS)
    assert cluster.never_passes("keda", "redis", REDIS)
