"""Who may reach whom: NetworkPolicy objects, read as a network plugin reads them."""

import ipaddress
from dataclasses import dataclass, field

from chart.rendering import Object, Rendered, containers, labels

NAMESPACE_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """A pod, or with `namespace=None` an address outside of the cluster."""

    namespace: str | None
    address: str
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    """Its container ports by name."""
    namespace_labels: dict[str, str] = field(default_factory=dict)

    @property
    def of_namespace(self) -> dict[str, str]:
        return {NAMESPACE_LABEL: self.namespace or "", **self.namespace_labels}


def pod_peer(pod: Object, namespace: str, address: str = "10.244.0.9") -> Peer:
    ports = {port["name"]: port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}
    return Peer(namespace, address, labels(pod), ports)


@dataclass(frozen=True)
class Network:
    """The policies of one namespace.

    Whether an `ipBlock` covers the addresses of pods depends on the plugin: what must pass has to pass where it does
    not (`blocks_cover_pods=False`), and what is forbidden has to fail where it does.
    """

    namespace: str
    policies: list[Object]
    blocks_cover_pods: bool = False

    def passes(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        return self._allowed("Egress", source, target, target, port, protocol) and self._allowed(
            "Ingress", target, source, target, port, protocol
        )

    def _allowed(self, direction: str, held: Peer, other: Peer, target: Peer, port: int, protocol: str) -> bool:
        """Whether the policies that hold for `held` let this through in one direction; no policy: everything."""
        if held.namespace != self.namespace:
            return True
        binding = [policy["spec"] for policy in self.policies if _binds(policy["spec"], direction, held)]
        if not binding:
            return True
        key, far = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
        return any(
            self._peer_matches(rule.get(key), other) and _port_matches(rule.get("ports"), target, port, protocol)
            for spec in binding
            for rule in spec.get(far) or []
        )

    def _peer_matches(self, entries: list[Object] | None, other: Peer) -> bool:
        return not entries or any(self._entry_matches(entry, other) for entry in entries)

    def _entry_matches(self, entry: Object, other: Peer) -> bool:
        if "ipBlock" in entry:
            covered = other.namespace is None or self.blocks_cover_pods
            return covered and _in_block(entry["ipBlock"], other.address)
        if other.namespace is None:
            return False
        if "namespaceSelector" in entry:
            there = selected(entry["namespaceSelector"], other.of_namespace)
        else:
            there = other.namespace == self.namespace
        return there and selected(entry.get("podSelector") or {}, other.labels)


def of_release(rendered: Rendered, namespace: str, *, blocks_cover_pods: bool = False) -> Network:
    return Network(namespace, rendered.of("NetworkPolicy"), blocks_cover_pods)


def _binds(spec: Object, direction: str, held: Peer) -> bool:
    kinds = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return direction in kinds and selected(spec.get("podSelector") or {}, held.labels)


def _in_block(block: Object, address: str) -> bool:
    one = ipaddress.ip_address(address)
    return one in ipaddress.ip_network(block["cidr"]) and not any(
        one in ipaddress.ip_network(hole) for hole in block.get("except") or []
    )


def _port_matches(ports: list[Object] | None, target: Peer, port: int, protocol: str) -> bool:
    return not ports or any(_is_port(entry, target, port, protocol) for entry in ports)


def _is_port(entry: Object, target: Peer, port: int, protocol: str) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    named: str | int | None = entry.get("port")
    if named is None:
        return True
    first = target.ports.get(named) if isinstance(named, str) else named
    return first is not None and bool(first <= port <= entry.get("endPort", first))


def selected(selector: Object, found: dict[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    wanted = (selector.get("matchLabels") or {}).items()
    return wanted <= found.items() and all(_holds(one, found) for one in selector.get("matchExpressions") or [])


def _holds(expression: Object, found: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return found.get(key) in values
        case "NotIn":
            return found.get(key) not in values
        case "Exists":
            return key in found
        case "DoesNotExist":
            return key not in found
    raise AssertionError(f"no such operator: {expression}")
