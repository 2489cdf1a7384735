"""What people look at with a browser: files of ours, which load nothing from anywhere else."""

import functools
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import errors
from api.openapi.document import document
from api.routes.edge import json_response

router = APIRouter()

FOLDER = Path(__file__).parents[1] / "pages"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# A page may run our scripts and talk to this service, and nothing else: whatever a model says can't change that.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # A new version of the service must not meet an old page of it.
    "cache-control": "no-cache",
}


@functools.cache
def _files() -> dict[str, Response]:
    return {
        path.name: Response(path.read_bytes(), headers=HEADERS, media_type=KINDS[path.suffix])
        for path in FOLDER.iterdir()
        if path.suffix in KINDS
    }


@router.get("/")
async def playground() -> Response:
    return _files()["playground.html"]


@router.get("/openapi.json")
async def openapi() -> Response:
    return json_response(document())


@router.get("/docs")
async def docs() -> Response:
    return _files()["docs.html"]


@router.get("/pages/{file}")
async def page_file(request: Request, file: str) -> Response:
    """The scripts and styles of the pages."""
    found = _files().get(file)
    if found is None:
        raise errors.unknown_url(request.method, request.url.path)
    return found
