"""One release of the chart: installed, changed and removed by Helm, which comes as a library (`helm_python`)."""

import copy
from dataclasses import dataclass

from helm_python import Config

from cluster.images import Images
from cluster.kube import Json, Namespace, ask, node_address
from local.parts import ROOT

CHART = ROOT / "charts" / "chatbot"
CHART_NAME = "chatbot"
# All pods of a release ready, PostgreSQL's first start and the migration among them.
HELM_SECONDS = 240
# Several of these releases share two cores with whatever else is there; real ones keep the chart's requests.
SMALL: Json = {"requests": {"cpu": "10m"}}


def basic_values(images: Images) -> Json:
    """What is said on top of the chart's defaults: our images, and a port for users outside the cluster."""
    return {
        "api": {"image": images.api.values, "service": {"type": "NodePort"}, "resources": SMALL},
        "worker": {"image": images.worker.values, "resources": SMALL},
        "migration": {"resources": SMALL},
        "redis": {"resources": SMALL},
        "postgresql": {"resources": SMALL},
    }


def merged(base: Json, changes: Json) -> Json:
    """As Helm merges values: maps key by key, all else replaced."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


@dataclass
class Release:
    namespace: Namespace
    name: str
    basis: Json
    """Values that every state of this release has."""
    changes: Json | None = None
    """What was said beside them last; None while Helm is at it, and when it has failed."""

    @property
    def full_name(self) -> str:
        return self.name if CHART_NAME in self.name else f"{self.name}-{CHART_NAME}"

    def object_name(self, component: str) -> str:
        return f"{self.full_name}-{component}"

    @property
    def selector(self) -> str:
        """Of its pods."""
        return f"app.kubernetes.io/instance={self.name}"

    async def install(self, changes: Json | None = None) -> None:
        """`helm install --wait`."""
        await self._with_chart("install", changes or {})

    async def upgrade(self, changes: Json, seconds: int = HELM_SECONDS) -> None:
        """`helm upgrade --wait`, to the basis and these changes alone."""
        await self._with_chart("upgrade", changes, seconds)

    async def become(self, changes: Json) -> None:
        """Upgrade, unless it is so already."""
        if self.changes != changes:
            await self.upgrade(changes)

    async def _with_chart(self, action: str, changes: Json, seconds: int = HELM_SECONDS) -> None:
        self.changes = None
        values = merged(self.basis, changes)
        with Config(namespace=self.namespace.name) as helm:
            call = helm.install if action == "install" else helm.upgrade
            await ask(call, str(CHART), self.name, values, wait="watcher", timeout=seconds)
        self.changes = changes

    async def rollback(self) -> None:
        """`helm rollback --wait`, to the revision before."""
        with Config(namespace=self.namespace.name) as helm:
            await ask(helm.rollback, self.name, wait="watcher", timeout=HELM_SECONDS)

    async def uninstall(self) -> None:
        """`helm uninstall --wait`; what the chart keeps, stays."""
        with Config(namespace=self.namespace.name) as helm:
            await ask(helm.uninstall, self.name, wait="watcher", timeout=HELM_SECONDS)

    async def run_tests(self) -> str:
        """`helm test --logs`: what the test pods said. Raises when one failed."""
        with Config(namespace=self.namespace.name) as helm:
            result = await ask(helm.test, self.name, timeout=HELM_SECONDS, logs=True)
        return str(result["logs"])

    async def api_key(self) -> str:
        return (await self.namespace.secret(self.full_name))["api-key"]

    async def url(self) -> str:
        """The API's /v1 from outside the cluster, through its Service."""
        spec = (await self.namespace.service(self.object_name("api"))).spec
        assert spec is not None
        port = next(one.node_port for one in spec.ports or [] if one.name == "http")
        return f"http://{await node_address()}:{port}/v1"
