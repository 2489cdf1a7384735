"""The two images that the tests run: built here where that is possible, or named by whoever built them."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass

from local.parts import ROOT

BUILD_SECONDS = 600
# Checkouts that use one cluster do not take each other's images.
TAG = f"k8s-test-{hashlib.blake2b(str(ROOT).encode(), digest_size=3).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Image:
    repository: str
    tag: str

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def values(self) -> dict[str, str]:
        return {"repository": self.repository, "tag": self.tag}


@dataclass(frozen=True, slots=True)
class Images:
    api: Image
    worker: Image


class NoImagesError(Exception):
    """No images to test.

    Build them, load them into the cluster, and name them:
        docker build -t chatbot-api:dev -f Dockerfile.api . && docker build -t chatbot-worker:dev -f Dockerfile.worker .
        kind load docker-image chatbot-api:dev chatbot-worker:dev    (or: minikube image load …)
        API_IMAGE=chatbot-api:dev WORKER_IMAGE=chatbot-worker:dev make k8s-test
    """

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def find_images() -> Images:
    """API_IMAGE and WORKER_IMAGE when they are set; else built by the program `cluster`, where that is on the PATH."""
    named = [os.environ.get(variable, "") for variable in ("API_IMAGE", "WORKER_IMAGE")]
    if all(named):
        api, worker = (Image(*name.rsplit(":", 1)) for name in named)
        return Images(api, worker)
    program = shutil.which("cluster")
    if program is None:
        raise NoImagesError
    return Images(_build(program, "api"), _build(program, "worker"))


def _build(program: str, part: str) -> Image:
    image = Image(f"chatbot-{part}", TAG)
    command = [program, "image", "-t", image.name, "-f", f"Dockerfile.{part}", "."]
    done = subprocess.run(command, cwd=ROOT, check=False, timeout=BUILD_SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return image
