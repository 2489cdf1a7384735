"""The cluster that KUBECONFIG names, through the official client; each call runs in a thread, and each wait ends."""

import asyncio
import base64
import functools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import yaml
from kubernetes import client, config, utils
from kubernetes.client import V1Deployment, V1Pod, V1Service, V1StatefulSet
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from tests.waiting import wait_until

Json = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

# A pod that comes again: its volume, the image's start, its probes, on a machine that does something else too.
READY_SECONDS = 120.0
EXEC_SECONDS = 60.0
COMPONENT = "app.kubernetes.io/component"
# What an administrator who means it sets: nothing of ours may need more.
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
STDOUT, STDERR, ERROR = 1, 2, 3


async def ask(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    return await asyncio.to_thread(call, *arguments, **named)


@functools.cache
def api() -> client.ApiClient:
    """Never the cluster that somebody happens to be logged in to: KUBECONFIG must be set on purpose."""
    config.load_kube_config(os.environ["KUBECONFIG"])  # type: ignore[no-untyped-call]  # the client's own, without types
    return client.ApiClient()


def core() -> client.CoreV1Api:
    return client.CoreV1Api(api())


def apps() -> client.AppsV1Api:
    return client.AppsV1Api(api())


def metadata(thing: V1Pod | V1Deployment | V1StatefulSet | V1Service) -> client.V1ObjectMeta:
    assert thing.metadata is not None
    return thing.metadata


def name_of(pod: V1Pod) -> str:
    name = metadata(pod).name
    assert name is not None
    return name


def is_ready(pod: V1Pod) -> bool:
    """Ready, and not about to go."""
    if pod.status is None or metadata(pod).deletion_timestamp is not None:
        return False
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])


def identities(pods: list[V1Pod]) -> set[tuple[str | None, int]]:
    """Which containers these are: another uid or one restart more is another one."""
    return {
        (metadata(pod).uid, sum(one.restart_count for one in (pod.status and pod.status.container_statuses) or []))
        for pod in pods
    }


class CommandError(Exception):
    """A command in a pod failed, or could not be started."""


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str

    async def create(self, **labels: str) -> None:
        body = client.V1Namespace(metadata=client.V1ObjectMeta(name=self.name, labels={**RESTRICTED, **labels}))
        await ask(core().create_namespace, body)

    async def delete(self) -> None:
        with suppress(ApiException):
            await ask(core().delete_namespace, self.name)

    async def create_objects(self, *objects: Json) -> None:
        for one in objects:
            await ask(utils.create_from_dict, api(), one, namespace=self.name)

    async def pods(self, component: str = "", *, selector: str = "") -> list[V1Pod]:
        """Without those that have ended."""
        wanted = ",".join(filter(None, [f"{COMPONENT}={component}" if component else "", selector]))
        listed = await ask(core().list_namespaced_pod, self.name, label_selector=wanted)
        return [pod for pod in listed.items if pod.status and pod.status.phase not in ("Succeeded", "Failed")]

    async def pod(self, name: str) -> V1Pod | None:
        try:
            return await ask(core().read_namespaced_pod, name, self.name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def ready_pod(self, name: str, *, other_than: str | None = None) -> V1Pod:
        """Wait for this pod, which is another one than that of this uid."""

        async def found() -> V1Pod | None:
            pod = await self.pod(name)
            return pod if pod and is_ready(pod) and metadata(pod).uid != other_than else None

        pod = await wait_until(found, f"pod {name} to be ready", READY_SECONDS)
        assert pod is not None
        return pod

    async def delete_pod(self, name: str, *, grace_seconds: int | None = None) -> None:
        """With 0 it is killed after the two seconds that a kubelet always gives."""
        await ask(core().delete_namespaced_pod, name, self.name, grace_period_seconds=grace_seconds)

    async def deployment(self, name: str) -> V1Deployment:
        return await ask(apps().read_namespaced_deployment, name, self.name)

    async def stateful_set(self, name: str) -> V1StatefulSet:
        return await ask(apps().read_namespaced_stateful_set, name, self.name)

    async def replicas(self, deployment: str) -> int:
        """Pods of it that are there, also those that still start or drain."""
        found = await self.deployment(deployment)
        return (found.status and found.status.replicas) or 0

    async def scale_stateful_set(self, name: str, replicas: int) -> None:
        """And wait until as many are ready, or all are gone."""
        body: Json = {"spec": {"replicas": replicas}}
        await ask(apps().patch_namespaced_stateful_set_scale, name, self.name, body)

        async def done() -> bool:
            status = (await self.stateful_set(name)).status
            return status is not None and status.replicas == replicas and (status.ready_replicas or 0) == replicas

        await wait_until(done, f"{name} to have {replicas} pods", READY_SECONDS)

    async def orphan_stateful_set(self, name: str) -> None:
        """Delete it, and leave its pods and volumes as they are."""
        await ask(apps().delete_namespaced_stateful_set, name, self.name, propagation_policy="Orphan")

        async def gone() -> bool:
            listed = await ask(apps().list_namespaced_stateful_set, self.name)
            return name not in [metadata(one).name for one in listed.items]

        await wait_until(gone, f"{name} to be gone", READY_SECONDS)

    async def delete_network_policy(self, name: str) -> None:
        await ask(client.NetworkingV1Api(api()).delete_namespaced_network_policy, name, self.name)

    async def secret(self, name: str) -> dict[str, str]:
        found = await ask(core().read_namespaced_secret, name, self.name)
        return {key: _plain(value) for key, value in (found.data or {}).items()}

    async def drop_from_secret(self, name: str, *keys: str) -> None:
        body: Json = {"data": dict.fromkeys(keys)}
        await ask(core().patch_namespaced_secret, name, self.name, body)

    async def service(self, name: str) -> V1Service:
        return await ask(core().read_namespaced_service, name, self.name)

    async def execute(self, pod: str, *command: str) -> str:
        """What a command in a pod prints; raises CommandError when it fails."""
        return await ask(_execute, self.name, pod, command)

    async def logs(self, pod: str, lines: int, *, previous: bool = False) -> str:
        return await ask(core().read_namespaced_pod_log, pod, self.name, tail_lines=lines, previous=previous)


def _plain(value: object) -> str:
    raw = value if isinstance(value, str | bytes) else str(value)
    return base64.b64decode(raw).decode()


def _execute(namespace: str, pod: str, command: tuple[str, ...]) -> str:
    # The client's `stream` changes the ApiClient that it is given while it runs: each call has its own.
    own = client.CoreV1Api(client.ApiClient(api().configuration))
    options: Json = {"stdin": False, "stdout": True, "stderr": True, "tty": False, "_preload_content": False}
    call = own.connect_get_namespaced_pod_exec
    try:
        socket = stream(call, pod, namespace, command=list(command), _request_timeout=EXEC_SECONDS, **options)
    except ApiException as error:
        raise CommandError(f"{command[0]} in {pod}: {error.reason}") from error
    socket.run_forever(timeout=EXEC_SECONDS)
    output, errors, ended = (socket.read_channel(channel) for channel in (STDOUT, STDERR, ERROR))
    # Its `close` leaves the connection open once the other end has closed its own.
    socket.sock.shutdown()
    verdict = yaml.safe_load(ended) if ended else {"status": "no end within the time-out"}
    if verdict["status"] != "Success":
        raise CommandError(f"{command[0]} in {pod}: {verdict.get('message', verdict['status'])}: {errors}")
    return str(output)


async def node_address() -> str:
    """Where node ports answer; NODE_ADDRESS is for clusters whose nodes this machine can't reach at their own."""
    if told := os.environ.get("NODE_ADDRESS"):
        return told
    nodes = await ask(core().list_node)
    addresses = (nodes.items[0].status and nodes.items[0].status.addresses) or []
    return next(one.address for one in addresses if one.type == "InternalIP")
