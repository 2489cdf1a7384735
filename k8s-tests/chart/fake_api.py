"""A Kubernetes API server as far as Helm's `lookup` goes: what kinds there are, and some live objects."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import helm_python
import orjson

from chart.rendering import NAME, NAMESPACE, Object, Rendered, chart, from_files, merged

KINDS = {
    "v1": {
        "Secret": "secrets",
        "ConfigMap": "configmaps",
        "Service": "services",
        "PersistentVolumeClaim": "persistentvolumeclaims",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "batch/v1": {"Job": "jobs"},
}


@dataclass
class FakeApi:
    url: str = ""
    version: str = "v1.34.0"
    objects: dict[str, Object] = field(default_factory=dict)
    """The live objects by path."""
    asked: list[str] = field(default_factory=list)

    def put(self, found: Object, namespace: str = NAMESPACE) -> None:
        prefix = "/api/v1" if found["apiVersion"] == "v1" else f"/apis/{found['apiVersion']}"
        plural = KINDS[found["apiVersion"]][found["kind"]]
        self.objects[f"{prefix}/namespaces/{namespace}/{plural}/{found['metadata']['name']}"] = found

    def answer(self, path: str) -> Object | None:
        groups = [version for version in KINDS if "/" in version]
        match path.strip("/").split("/"):
            case ["version"]:
                major, minor, _ = self.version.removeprefix("v").split(".", 2)
                return {"major": major, "minor": minor, "gitVersion": self.version}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in groups]}
            case ["api", "v1"]:
                return _resources("v1")
            case ["apis", group, version] if f"{group}/{version}" in groups:
                return _resources(f"{group}/{version}")
        return self.objects.get(path)

    def render(self, *layers: Object, name: str = NAME, namespace: str = NAMESPACE, revision: int = 1) -> Rendered:
        """Render as `helm install` or `helm upgrade` does: `lookup` sees what is live here."""
        with self.config(namespace) as config:
            files = config.render(
                chart(),
                merged(*layers),
                name=name,
                namespace=namespace,
                revision=revision,
                is_install=revision == 1,
                is_upgrade=revision > 1,
            )
        return from_files(files)

    def config(self, namespace: str = NAMESPACE) -> helm_python.Config:
        """Helm, pointed at this server."""
        return helm_python.Config(
            kubeconfig_content=self._kubeconfig(namespace), namespace=namespace, storage_driver="memory"
        )

    def _kubeconfig(self, namespace: str) -> str:
        named = {"cluster": "fake", "user": "fake", "namespace": namespace}
        return orjson.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                "users": [{"name": "fake", "user": {}}],
                "contexts": [{"name": "fake", "context": named}],
            }
        ).decode()


def _group(version: str) -> Object:
    shown = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [shown], "preferredVersion": shown}


def _resources(version: str) -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": ["get", "list"]}
            for kind, plural in KINDS[version].items()
        ],
    }


@contextlib.contextmanager
def fake_api() -> Iterator[FakeApi]:
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            api.asked.append(path)
            found = api.answer(path)
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = orjson.dumps(missing if found is None else found)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
