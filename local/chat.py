"""`python -m local.chat`: the example chat with what `make run` started, whatever upstream OPENAI_BASE_URL names."""

import os
import sys

from core.settings import Environment
from local.children import HOST
from local.parts import ROOT
from local.settings import variables


def main() -> None:
    reader = Environment(variables())
    url = f"http://{HOST}:{reader.port('PORT', 4000)}/v1"
    environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": reader.text("API_KEY", "none")}
    script = str(ROOT / "examples" / "chat.py")
    os.execve(sys.executable, [sys.executable, script, *sys.argv[1:]], environment)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
