"""`.env.example` names every setting that the processes read, and none that they don't."""

import re

from local.parts import ROOT

READ = re.compile(r'\.(?:text|whole|seconds|fraction|port|choice|flag|get)\(\s*"([A-Z][A-Z_]+)"')
SOURCES = ("core/settings.py", "api/settings.py", "worker/settings.py", "local/settings.py")


def test_settings_and_example_agree() -> None:
    read = {name for source in SOURCES for name in READ.findall((ROOT / source).read_text(encoding="utf-8"))}
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert read == named
