"""What a failed test prints about the cluster, and the figures that a run has measured."""

from kubernetes.client import V1Pod
from kubernetes.client.exceptions import ApiException

from cluster.kube import Namespace, core, name_of

LOG_LINES = 60
EVENTS = 60

watched: list[Namespace] = []
"""Where pods of ours are."""
figures: dict[str, str] = {}


def measured(what: str, seconds: float) -> None:
    figures[what] = f"{seconds:.1f} s"


def counted(what: str, number: int) -> None:
    """Of the whole run."""
    figures[what] = str(int(figures.get(what, "0")) + number)


def account(namespace: Namespace) -> list[tuple[str, str]]:
    """(headline, text): events, and for each pod how it stands and its logs' ends."""
    try:
        pods = core().list_namespaced_pod(namespace.name).items
        events = core().list_namespaced_event(namespace.name).items
    except ApiException as error:
        return [(namespace.name, f"can't be asked: {error.reason}")]
    lines = [
        f"{one.last_timestamp or one.event_time} {one.type} {one.involved_object.kind}/{one.involved_object.name}"
        f" {one.reason}: {one.message}"
        for one in events
    ]
    told = [(f"events in {namespace.name}", "\n".join(sorted(lines)[-EVENTS:]))]
    return told + [part for pod in pods for part in _of_pod(namespace, pod)]


def _of_pod(namespace: Namespace, pod: V1Pod) -> list[tuple[str, str]]:
    name = name_of(pod)
    shown = {"phase", "reason", "message", "conditions", "container_statuses"}
    status = pod.status.model_dump_json(include=shown, exclude_none=True, indent=1) if pod.status else ""
    told = [(f"{namespace.name}/{name}: status", status)]
    for previous in (True, False):
        text = _logs(namespace, name, previous=previous)
        if text:
            told.append((f"{namespace.name}/{name}: log{' before its restart' if previous else ''}", text))
    return told


def _logs(namespace: Namespace, pod: str, *, previous: bool) -> str:
    try:
        return core().read_namespaced_pod_log(pod, namespace.name, tail_lines=LOG_LINES, previous=previous)
    except ApiException:
        # It has none.
        return ""
