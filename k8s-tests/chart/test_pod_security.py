"""Every pod of the chart, tests and jobs too, runs in a namespace that enforces the `restricted` standard."""

import copy
from typing import Any

import pytest

from chart.rendering import VALUE_SETS, Object, example
from chart.restricted import violations

SOUND: Object = {
    "automountServiceAccountToken": False,
    "serviceAccountName": "some-api",
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "api",
            "ports": [{"name": "http", "containerPort": 4000}],
            "livenessProbe": {"httpGet": {"path": "/livez", "port": "http"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
    "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": "keys"}}],
}
CONTAINER = "containers.0."
# What is put where in a sound pod (None: taken away), and what must be said about it.
BREAKS = [
    ("hostNetwork", True, "hostNetwork is set"),
    ("hostPID", True, "hostPID is set"),
    ("hostIPC", True, "hostIPC is set"),
    ("automountServiceAccountToken", None, "automountServiceAccountToken"),
    ("automountServiceAccountToken", True, "automountServiceAccountToken"),
    ("serviceAccountName", None, "service account"),
    ("serviceAccountName", "default", "service account"),
    ("securityContext", None, "runAsNonRoot is not true"),
    ("securityContext.sysctls", [{"name": "net.core.somaxconn", "value": "1024"}], "sysctls"),
    ("securityContext.runAsNonRoot", None, "runAsNonRoot is not true"),
    ("securityContext.runAsNonRoot", False, "may run as root"),
    ("securityContext.runAsUser", 0, "runs as user 0"),
    ("securityContext.runAsUser", None, "no numeric user"),
    ("securityContext.runAsGroup", 0, "runs as group 0"),
    ("securityContext.runAsGroup", None, "no numeric group"),
    ("securityContext.seccompProfile", None, "no seccomp profile"),
    ("securityContext.seccompProfile.type", "Unconfined", "seccomp profile Unconfined"),
    ("securityContext.seccompProfile.type", "Localhost", "seccomp profile Localhost"),
    ("securityContext.appArmorProfile", {"type": "Unconfined"}, "AppArmor"),
    ("securityContext.seLinuxOptions", {"user": "system_u"}, "SELinux"),
    ("volumes.0", {"name": "host", "hostPath": {"path": "/"}}, "volume host is a hostPath"),
    ("volumes.0", {"name": "share", "nfs": {"server": "nas", "path": "/"}}, "volume share is a nfs"),
    (CONTAINER + "securityContext", None, "allowPrivilegeEscalation"),
    (CONTAINER + "securityContext.allowPrivilegeEscalation", None, "allowPrivilegeEscalation is not false"),
    (CONTAINER + "securityContext.readOnlyRootFilesystem", None, "readOnlyRootFilesystem is not true"),
    (CONTAINER + "securityContext.privileged", True, "privileged"),
    (CONTAINER + "securityContext.procMount", "Unmasked", "procMount"),
    (CONTAINER + "securityContext.runAsUser", 0, "runs as user 0"),
    (CONTAINER + "securityContext.runAsNonRoot", False, "may run as root"),
    (CONTAINER + "securityContext.seccompProfile", {"type": "Unconfined"}, "seccomp"),
    (CONTAINER + "securityContext.capabilities", None, "capabilities are dropped"),
    (CONTAINER + "securityContext.capabilities.drop", ["NET_RAW"], "capabilities are dropped"),
    (CONTAINER + "securityContext.capabilities.add", ["NET_BIND_SERVICE"], "capabilities are added"),
    (CONTAINER + "ports.0.hostPort", 4000, "hostPort 4000"),
    (CONTAINER + "livenessProbe.httpGet.host", "127.0.0.1", "names a host"),
    ("initContainers", [{"name": "first"}], "first: allowPrivilegeEscalation"),
    ("ephemeralContainers", [{"name": "debug"}], "debug: allowPrivilegeEscalation"),
]


def changed(spec: Object, path: str, value: object) -> Object:
    """The spec with this value at `containers.0.name`; None takes it away."""
    result = copy.deepcopy(spec)
    *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    holder: Any = result
    for key in way:
        holder = holder[key]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return result


def test_a_sound_pod_is_found_sound() -> None:
    assert violations(SOUND) == []


@pytest.mark.parametrize(("path", "value", "told"), BREAKS)
def test_a_broken_pod_is_caught(path: str, value: object, told: str) -> None:
    assert any(told in fault for fault in violations(changed(SOUND, path, value)))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_restricted(name: str) -> None:
    found = {owner: faults for owner, pod in example(name).pods() if (faults := violations(pod["spec"]))}
    assert found == {}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_component_has_a_service_account_of_its_own_without_a_token(name: str) -> None:
    rendered = example(name)
    accounts = {owner: pod["spec"]["serviceAccountName"] for owner, pod in rendered.pods()}
    assert len(set(accounts.values())) == len(accounts)
    assert all(account["automountServiceAccountToken"] is False for account in rendered.of("ServiceAccount"))
    made = {account["metadata"]["name"] for account in rendered.of("ServiceAccount")}
    brought = {
        part["serviceAccount"]["name"]
        for part in VALUE_SETS[name].values()
        if isinstance(part, dict) and part.get("serviceAccount", {}).get("create") is False
    }
    assert set(accounts.values()) == made | brought
