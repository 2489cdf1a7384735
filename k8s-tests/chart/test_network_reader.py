"""The reader of NetworkPolicies reads them as Kubernetes' documentation says: here it is held against known cases."""

import pytest

from chart.network import Network, Peer, selected
from chart.rendering import Object

API = Peer("chats", "10.244.0.1", {"app": "api"}, {"http": 4000})
REDIS = Peer("chats", "10.244.0.2", {"app": "redis"}, {"redis": 6379})
ELSEWHERE = Peer("other", "10.244.0.3", {"app": "api"})
INTERNET = Peer(None, "203.0.113.7")
CLIENT = Peer("web", "10.244.0.4", {"app": "shop"}, namespace_labels={"team": "shop"})


def policy(**spec: object) -> Object:
    return {"kind": "NetworkPolicy", "spec": {"podSelector": {"matchLabels": {"app": "redis"}}, **spec}}


def passes(
    found: Object, source: Peer, target: Peer, port: int, *, blocks: bool = False, protocol: str = "TCP"
) -> bool:
    return Network("chats", [found], blocks).passes(source, target, port, protocol)


FROM_API: Object = {"from": [{"podSelector": {"matchLabels": {"app": "api"}}}]}


def test_without_a_policy_everything_passes() -> None:
    assert Network("chats", []).passes(INTERNET, REDIS, 6379)


def test_a_policy_without_rules_cuts_everything_off() -> None:
    assert not passes(policy(policyTypes=["Ingress"]), API, REDIS, 6379)
    assert not passes(policy(policyTypes=["Egress"]), REDIS, API, 4000)


def test_a_policy_holds_only_for_what_it_selects_and_for_its_direction() -> None:
    closed = policy(policyTypes=["Ingress"])
    assert passes(closed, REDIS, API, 4000)
    assert passes(closed, REDIS, INTERNET, 443)


def test_without_types_a_policy_is_for_ingress_and_with_egress_rules_for_both() -> None:
    assert not passes(policy(), API, REDIS, 6379)
    assert passes(policy(), REDIS, INTERNET, 443)
    assert not passes(policy(egress=[{"to": [{"podSelector": {}}]}]), REDIS, INTERNET, 443)


def test_a_pod_selector_alone_means_this_namespace() -> None:
    found = policy(ingress=[FROM_API])
    assert passes(found, API, REDIS, 6379)
    assert not passes(found, ELSEWHERE, REDIS, 6379)
    assert not passes(found, INTERNET, REDIS, 6379)


@pytest.mark.parametrize(
    ("entry", "opens"),
    [
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "shop"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "bank"}}}, False),
        ({"namespaceSelector": {}}, True),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "bank"}}}, False),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "shop"}}}, True),
    ],
)
def test_a_namespace_selector_looks_at_the_namespace_and_a_pod_selector_beside_it_at_the_pod(
    entry: Object, *, opens: bool
) -> None:
    assert passes(policy(ingress=[{"from": [entry]}]), CLIENT, REDIS, 6379) is opens


def test_two_entries_are_either_or() -> None:
    either = [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"app": "bank"}}}]
    assert passes(policy(ingress=[{"from": either}]), CLIENT, REDIS, 6379)


def test_rules_of_several_policies_add_up() -> None:
    closed, opened = policy(policyTypes=["Ingress"]), policy(ingress=[FROM_API])
    assert Network("chats", [closed, opened]).passes(API, REDIS, 6379)


@pytest.mark.parametrize(
    ("port", "opens"),
    [
        ({"port": 6379}, True),
        ({"port": "redis"}, True),
        ({"port": "metrics"}, False),
        ({"port": 6000, "endPort": 7000}, True),
        ({"port": 6380, "endPort": 7000}, False),
        ({"protocol": "UDP", "port": 6379}, False),
        ({}, True),
    ],
)
def test_ports_are_numbers_ranges_or_names_of_the_target(port: Object, *, opens: bool) -> None:
    assert passes(policy(ingress=[{**FROM_API, "ports": [port]}]), API, REDIS, 6379) is opens


def test_a_block_covers_addresses_outside_and_pods_only_where_the_plugin_says_so() -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.96.0.0/12"]}}
    found = policy(egress=[{"to": [block]}], policyTypes=["Egress"])
    assert passes(found, REDIS, INTERNET, 443)
    assert not passes(found, REDIS, Peer(None, "10.96.0.1"), 443)
    assert not passes(found, REDIS, API, 4000)
    assert passes(found, REDIS, API, 4000, blocks=True)


def test_both_sides_must_agree() -> None:
    ingress = policy(ingress=[FROM_API])
    api_closed = {"spec": {"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"]}}
    assert not Network("chats", [ingress, api_closed]).passes(API, REDIS, 6379)


@pytest.mark.parametrize(
    ("operator", "values", "opens"),
    [
        ("In", ["api", "worker"], True),
        ("In", ["redis"], False),
        ("NotIn", ["redis"], True),
        ("NotIn", ["api"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_expressions_select(operator: str, values: list[str], *, opens: bool) -> None:
    found = {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}
    assert selected(found, {"app": "api"}) is opens
