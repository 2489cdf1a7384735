"""skaffold.yaml against the chart, the Dockerfiles and the tree: everything that it names is there."""

import copy
import re

import pytest

from chart.rendering import CHART, ROOT, Object, Rendered, at, containers, documents, labels, pod_of, render
from chart.restricted import violations
from chart.test_dockerfiles import stage, stages
from chart.validation import faults, supported_minors

(CONFIG,) = documents((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
DIGEST = "sha256:" + "0" * 64
# As skaffold names an image in its templates.
BUILT = {
    f"{what}_{artifact['image'].replace('-', '_')}": value
    for artifact in CONFIG["build"]["artifacts"]
    for what, value in (("IMAGE_REPO", f"mirror/{artifact['image']}"), ("IMAGE_TAG", f"abc@{DIGEST}"))
}


def patched(profile: str) -> Object:
    """The configuration with a profile's patches, each of which adds something to what is there."""
    config = copy.deepcopy(CONFIG)
    (found,) = (one for one in config["profiles"] if one["name"] == profile)
    for patch in found["patches"]:
        *path, last = patch["path"].strip("/").split("/")
        place = config
        for step in path:
            place = place[int(step) if isinstance(place, list) else step]
        assert patch["op"] == "add"
        assert last not in place
        place[last] = patch["value"]
    return config


DEV = patched("dev")


def values_of(config: Object) -> dict[str, object]:
    (release,) = config["deploy"]["helm"]["releases"]
    filled = {
        name: re.sub(r"\{\{\.(\w+)\}\}", lambda found: BUILT[found[1]], template)
        for name, template in release["setValueTemplates"].items()
    }
    return {**filled, **release.get("setValues", {})}


def installed(config: Object) -> Rendered:
    (release,) = config["deploy"]["helm"]["releases"]
    assert (ROOT / release["chartPath"]).resolve() == CHART.resolve()
    return render(*(at(name, value) for name, value in values_of(config).items()), name=release["name"])


@pytest.mark.parametrize("config", [CONFIG, DEV], ids=["run", "dev"])
def test_every_value_that_it_sets_is_the_charts(config: Object) -> None:
    (defaults,) = documents((CHART / "values.yaml").read_text(encoding="utf-8"))
    for name in values_of(config):
        place = defaults
        for step in name.split("."):
            assert step in place, f"the chart has no {name}"
            place = place[step]


@pytest.mark.parametrize("config", [CONFIG, DEV], ids=["run", "dev"])
def test_the_pods_get_what_was_built(config: Object) -> None:
    for component in ("api", "worker", "migrate"):
        (container,) = installed(config).pod(component)["spec"]["containers"]
        name = "chatbot-api" if component == "api" else "chatbot-worker"
        assert container["image"] == f"mirror/{name}:abc@{DIGEST}"


@pytest.mark.parametrize("config", [CONFIG, DEV], ids=["run", "dev"])
def test_it_builds_every_dockerfile(config: Object) -> None:
    assert config["build"]["tagPolicy"] == {"inputDigest": {}}
    files = set()
    for artifact in config["build"]["artifacts"]:
        file = artifact["docker"]["dockerfile"]
        assert (ROOT / artifact["context"]).resolve() == ROOT
        assert artifact["image"] == f"chatbot-{file.removeprefix('Dockerfile.')}"
        files.add(file)
    assert files == {path.name for path in ROOT.glob("Dockerfile.*")}


def test_what_is_developed_can_take_changed_files() -> None:
    for artifact in DEV["build"]["artifacts"]:
        part = artifact["image"].removeprefix("chatbot-")
        dev = stage(part, artifact["docker"]["target"])
        (folder,) = (found.only("WORKDIR") for found in stages(part) if found.all("WORKDIR"))
        synced = set()
        for rule in artifact["sync"]["manual"]:
            assert rule["dest"] == folder
            assert any(path.is_file() for path in ROOT.glob(rule["src"]))
            synced.add(rule["src"].removesuffix("/**/*"))
        copies = {step.rest.split()[0] for step in dev.all("COPY") if step.options == ["--chown=10001:10001"]}
        assert copies == {*synced, "local"}
        (container,) = installed(DEV).pod(part)["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is False
    assert installed(DEV).one("Deployment", "api")["spec"]["replicas"] == 1


def test_the_forwarded_port_is_the_apis() -> None:
    (forward,) = CONFIG["portForward"]
    assert forward["resourceType"] == "service"
    (service,) = (one for one in installed(CONFIG).of("Service") if one["metadata"]["name"] == forward["resourceName"])
    assert labels(service)["app.kubernetes.io/component"] == "api"
    assert forward["port"] in [port["port"] for port in service["spec"]["ports"]]


def test_verify_asks_the_installed_service_with_its_key() -> None:
    (verify,) = CONFIG["verify"]
    assert verify["container"]["image"] in [artifact["image"] for artifact in CONFIG["build"]["artifacts"]]
    (job,) = documents((ROOT / verify["executionMode"]["kubernetesCluster"]["jobManifestPath"]).read_text())
    pod = pod_of(job)
    (container,) = containers(pod)
    assert container["name"] == verify["container"]["name"]
    rendered = installed(CONFIG)
    (script,) = verify["container"]["args"]
    compile(script, "verify", "exec")
    (host, port) = re.findall(r"http://([a-z-]+):(\d+)/v1/", script)[0]
    ports = {
        (one["metadata"]["name"], str(port["port"])) for one in rendered.of("Service") for port in one["spec"]["ports"]
    }
    assert (host, port) in ports
    (key,) = container["env"]
    assert f'os.environ["{key["name"]}"]' in script
    reference = key["valueFrom"]["secretKeyRef"]
    (secret,) = (one for one in rendered.of("Secret") if one["metadata"]["name"] == reference["name"])
    assert reference["key"] in secret["data"]
    accounts = [one["metadata"]["name"] for one in rendered.of("ServiceAccount")]
    assert pod["spec"]["serviceAccountName"] in accounts
    assert violations(pod["spec"]) == []
    for version in supported_minors():
        assert faults(job, version) == []
