"""What the code itself says of its settings, and the environment that the chart gives to it."""

import base64
import re
from pathlib import Path

from chart.rendering import ROOT, Object, Rendered, environment
from tests.tls_servers import authority

READ = re.compile(r'\.(?:text|whole|seconds|port|choice|flag|get)\(\s*"([A-Z][A-Z_]+)"')
SOURCES = ("core/settings.py", "api/settings.py", "worker/settings.py")
# In place of what stands in a Secret or ConfigMap that is not the chart's own; a collector's headers have this form.
ELSEWHERE = "from=elsewhere"
KEYS = f'[[keys]]\ntenant = "acme"\nname = "web"\nsha256 = "{"2b" * 32}"\n'


def settings() -> set[str]:
    """Every setting that a process reads."""
    return {name for source in SOURCES for name in READ.findall((ROOT / source).read_text(encoding="utf-8"))}


def in_example() -> set[str]:
    """Every setting that .env.example names."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return set(re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.MULTILINE))


def settings_environment(rendered: Rendered, pod: Object, folder: Path | None = None) -> dict[str, str]:
    """The environment that a pod's one container gets; what it mounts is written to `folder` where there is one.

    What stands in Secrets and ConfigMaps that are not the chart's own is a text that means nothing.
    """
    (container,) = pod["spec"]["containers"]
    found: dict[str, str] = {}
    for name, entry in environment(container).items():
        found[name] = entry["value"] if "value" in entry else _of_secret(rendered, entry["valueFrom"]["secretKeyRef"])
    for name in [name for name in found if name.endswith("_FILE") and folder is not None]:
        assert folder is not None
        copy = folder / name
        copy.write_text(_mounted(rendered, pod, found[name]) or _elsewhere(name, folder), encoding="utf-8")
        found[name] = str(copy)
    return found


def _of_secret(rendered: Rendered, reference: Object) -> str:
    for secret in rendered.of("Secret"):
        if secret["metadata"]["name"] == reference["name"]:
            return base64.b64decode(secret["data"][reference["key"]]).decode()
    return ELSEWHERE


def _mounted(rendered: Rendered, pod: Object, file: str) -> str | None:
    """The text of a file that a volume of the chart's own ConfigMaps holds."""
    path = Path(file)
    (mount,) = (one for one in pod["spec"]["containers"][0]["volumeMounts"] if one["mountPath"] == str(path.parent))
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == mount["name"])
    for found in rendered.of("ConfigMap"):
        if found["metadata"]["name"] == volume.get("configMap", {}).get("name"):
            text: str = found["data"][path.name]
            return text
    return None


def _elsewhere(setting: str, folder: Path) -> str:
    """A file as its setting wants it, in place of a user's own."""
    if setting.endswith("_CA_FILE"):
        return authority(folder, setting.lower()).file.read_text(encoding="utf-8")
    return KEYS if setting == "KEYS_FILE" else ELSEWHERE
