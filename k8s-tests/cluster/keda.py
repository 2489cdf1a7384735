"""What KEDA says of a release's scaler."""

from typing import Any

from kubernetes.client import CustomObjectsApi
from kubernetes.client.exceptions import ApiException

from cluster.kube import api, ask
from cluster.release import Release

GROUP, VERSION, SCALERS = "keda.sh", "v1alpha1", "scaledobjects"


async def keda_is_there() -> bool:
    try:
        await ask(CustomObjectsApi(api()).list_cluster_custom_object, GROUP, VERSION, SCALERS)
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return True


async def scaler_is_ready(release: Release) -> bool:
    """It has reached Redis, and been told the list's length."""
    found: Any = await ask(
        CustomObjectsApi(api()).list_namespaced_custom_object, GROUP, VERSION, release.namespace.name, SCALERS
    )
    conditions = [one for scaler in found["items"] for one in scaler.get("status", {}).get("conditions", [])]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
