"""Pods of the tests' own: a model provider, and probes that try what the network lets through."""

from dataclasses import dataclass
from pathlib import Path

from kubernetes.client import V1Pod

from cluster import upstream
from cluster.images import Image
from cluster.kube import CommandError, Json, Namespace, name_of

UPSTREAM = "upstream"
UPSTREAM_URL = f"http://{UPSTREAM}:{upstream.PORT}/v1"
# The image's own user; each pod here fits a namespace that enforces restricted pods.
USER = 10001
PROBE_PORT = 8000
# What a policy cuts is not answered at all.
CONNECT = 'exec timeout 3 bash -c "exec 3<>/dev/tcp/$0/$1"'
FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


def _pod(name: str, image: Image, command: list[str], labels: dict[str, str], source: str = "") -> Json:
    mounts = [{"name": "source", "mountPath": "/source", "readOnly": True}] if source else []
    volumes = [{"name": "source", "configMap": {"name": source}}] if source else []
    container: Json = {
        "name": name,
        "image": image.name,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec: Json = {
        "containers": [container],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


async def start_upstream(namespace: Namespace, image: Image) -> None:
    """The provider of upstream.py, at UPSTREAM_URL for all in this namespace."""
    source = {"upstream.py": Path(upstream.__file__).read_text(encoding="utf-8")}
    labels = {"app": UPSTREAM}
    await namespace.create_objects(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": UPSTREAM}, "data": source},
        _pod(UPSTREAM, image, ["python", "/source/upstream.py"], labels, UPSTREAM),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": UPSTREAM},
            "spec": {"selector": labels, "ports": [{"port": upstream.PORT}]},
        },
    )
    await namespace.ready_pod(UPSTREAM)


async def start_probe(namespace: Namespace, name: str, image: Image) -> "Probe":
    """A pod that is nobody: it does what it is told, and listens at PROBE_PORT."""
    serving = ["python", "-m", "http.server", str(PROBE_PORT), "--directory", "/usr"]
    await namespace.create_objects(_pod(name, image, serving, {"app": name}))
    pod = await namespace.ready_pod(name)
    return Probe(namespace, name, address(pod))


def address(pod: V1Pod) -> str:
    assert pod.status is not None
    return str(pod.status.pod_ip)


@dataclass(frozen=True, slots=True)
class Probe:
    """A pod from which the network is tried; any that has a bash."""

    namespace: Namespace
    pod: str
    address: str

    async def reaches(self, host: str, port: int) -> bool:
        try:
            await self.namespace.execute(self.pod, "bash", "-c", CONNECT, host, str(port))
        except CommandError:
            return False
        return True

    async def is_cut_off(self, host: str, port: int) -> bool:
        return not await self.reaches(host, port)

    async def fetch(self, url: str) -> str:
        return await self.namespace.execute(self.pod, "python", "-c", FETCH, url)


def probe_in(namespace: Namespace, pod: V1Pod) -> Probe:
    return Probe(namespace, name_of(pod), address(pod))
