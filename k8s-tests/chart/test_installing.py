"""What Helm says to whoever installs the chart, and where it refuses to."""

import subprocess
import sys

import helm_python
import pytest

from chart.fake_api import fake_api
from chart.rendering import CHART, FULLNAME, NAME, NAMESPACE, ROOT, Object, at, chart, render, title
from chart.validation import supported_minors

OLDEST, NEWEST = supported_minors()
BEFORE = f"1.{int(OLDEST.partition('.')[2]) - 1}"


def refused(version: str) -> bool:
    """Whether Helm finds a cluster of this version unfit; the fake one fails it later on anyway."""
    with fake_api() as api:
        api.version = version
        with api.config() as config, pytest.raises(helm_python.HelmError) as told:
            config.install(CHART, NAME, {}, dry_run="server")
    return "incompatible with Kubernetes" in str(told.value)


@pytest.mark.parametrize(
    ("version", "unfit"),
    [
        (f"v{BEFORE}.9", True),
        (f"v{OLDEST}.0", False),
        # As managed clusters name theirs.
        (f"v{OLDEST}.4-gke.1129000", False),
        (f"v{OLDEST}.2-eks-1234567", False),
        (f"v{NEWEST}.0", False),
    ],
)
def test_helm_refuses_clusters_that_are_older_than_the_oldest_supported(version: str, *, unfit: bool) -> None:
    assert refused(version) is unfit


def test_the_table_of_values_in_the_readme_is_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "charts" / "readme.py", "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.parametrize("value", ["ingress.annotations", "httpRoute.timeouts"])
def test_the_readme_tells_what_proxies_must_be_told_of_streams(value: str) -> None:
    """Their usual time-outs would cut long answers, and their buffers would hold them back."""
    (row,) = (line for line in (CHART / "README.md").read_text(encoding="utf-8").splitlines() if f"`{value}`" in line)
    assert "streamed for minutes" in row


def test_examples_of_values_are_not_packaged() -> None:
    names = {file["name"] for file in chart().files}
    assert "README.md" in names
    assert not {name for name in names if name.startswith("ci/")}


def notes(values: Object | None = None) -> str:
    return render(values or {}).notes


def test_notes_tell_the_next_commands_with_the_releases_own_names() -> None:
    told = notes()
    commands = [line.strip() for line in told.splitlines() if line.strip().startswith(("kubectl", "curl", "KEY="))]
    assert len(commands) >= 3
    assert f"service/{FULLNAME}-api 4000:4000" in told
    assert f"helm test {NAME} --namespace {NAMESPACE}" in told
    assert all(f"--namespace {NAMESPACE}" in line for line in told.splitlines() if "kubectl" in line)


def test_notes_ask_for_a_key_only_where_one_is_needed() -> None:
    assert "Authorization" in notes()
    assert "Authorization" not in notes(at("api.auth.enabled", False))
    assert "Authorization" in notes(at("api.auth.keysFile.existingSecret", "tenants"))
    assert "get secret tenants" not in notes(at("api.auth.keysFile.existingSecret", "tenants"))


def test_notes_say_what_an_uninstall_leaves() -> None:
    rendered = render()
    claims = {
        f"persistentvolumeclaim/{claim['metadata']['name']}-{found['metadata']['name']}-0"
        for found in rendered.of("StatefulSet")
        for claim in found["spec"]["volumeClaimTemplates"]
    }
    assert len(claims) == 2
    for kept in (*claims, *(title(found).replace("Secret", "secret") for found in rendered.of("Secret"))):
        assert kept in rendered.notes
    # Helm leaves the pods of tests too.
    (test,) = (found for found in rendered.of("Pod") if found["metadata"]["annotations"]["helm.sh/hook"] == "test")
    assert f"--ignore-not-found pod/{test['metadata']['name']}" in rendered.notes
    external: Object = {
        store: {"enabled": False, "external": {"host": "x.example.org", "existingSecret": "mine"}}
        for store in ("redis", "postgresql")
    }
    assert "persistentvolumeclaim" not in notes(external)
