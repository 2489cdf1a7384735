"""The `restricted` Pod Security Standard, and what this chart promises beyond it, as one function over pod specs."""

from chart.rendering import Object

# Volumes that `restricted` allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")
# An account that no distribution hands out itself.
LOWEST_USER = 1


def violations(spec: Object) -> list[str]:
    """What is wrong with a pod's spec; nothing: it runs in a namespace that enforces `restricted`, and quietly."""
    found = [f"{field} is set" for field in HOST_FIELDS if spec.get(field)]
    if spec.get("automountServiceAccountToken") is not False:
        found.append("automountServiceAccountToken is not false")
    if spec.get("serviceAccountName", "default") == "default":
        found.append("no service account of its own")
    pod = spec.get("securityContext") or {}
    if pod.get("sysctls"):
        found.append("sysctls are set")
    found += _identity("the pod", pod)
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            found.append(f"volume {volume['name']} is a {', '.join(sorted(kinds - VOLUMES))}")
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field, []):
            found += [f"{container['name']}: {fault}" for fault in _container(container, pod)]
    return found


def _container(container: Object, pod: Object) -> list[str]:
    own = container.get("securityContext") or {}
    found = _identity("it", own) + _effective({**pod, **own})
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    found += [f"{field} is not {str(value).lower()}" for field, value in wanted.items() if own.get(field) is not value]
    capabilities = own.get("capabilities") or {}
    if capabilities.get("drop") != ["ALL"]:
        found.append("not all capabilities are dropped")
    if capabilities.get("add"):
        found.append(f"capabilities are added: {capabilities['add']}")
    if own.get("privileged"):
        found.append("privileged")
    if own.get("procMount", "Default") != "Default":
        found.append("procMount is set")
    found += [f"hostPort {port['hostPort']}" for port in container.get("ports", []) if port.get("hostPort")]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if any("host" in (container.get(probe, {}).get(kind) or {}) for kind in ("httpGet", "tcpSocket")):
            found.append(f"{probe} names a host")
    return found


def _identity(who: str, context: Object) -> list[str]:
    """What neither the pod nor any of its containers may say, whatever the other one says."""
    found = []
    if context.get("runAsNonRoot") is False:
        found.append(f"{who} may run as root")
    if "runAsUser" in context and not _ordinary(context["runAsUser"]):
        found.append(f"{who} runs as user {context['runAsUser']}")
    if "runAsGroup" in context and not _ordinary(context["runAsGroup"]):
        found.append(f"{who} runs as group {context['runAsGroup']}")
    if (context.get("seccompProfile") or {}).get("type", "RuntimeDefault") != "RuntimeDefault":
        found.append(f"{who} has the seccomp profile {context['seccompProfile']['type']}")
    if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") != "RuntimeDefault":
        found.append(f"{who} has the AppArmor profile {context['appArmorProfile']['type']}")
    if context.get("seLinuxOptions"):
        found.append(f"{who} sets SELinux options")
    return found


def _ordinary(number: object) -> bool:
    return isinstance(number, int) and number >= LOWEST_USER


def _effective(context: Object) -> list[str]:
    """What must be said for a container, by itself or by its pod."""
    found = []
    if context.get("runAsNonRoot") is not True:
        found.append("runAsNonRoot is not true")
    if "runAsUser" not in context:
        found.append("no numeric user")
    if "runAsGroup" not in context:
        found.append("no numeric group")
    if not context.get("seccompProfile"):
        found.append("no seccomp profile")
    return found
