"""The pages for people: they work without anything from outside, and nothing that is shown can become HTML."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest

from local.parts import ROOT
from tests.running import Service

pytestmark = pytest.mark.anyio

FILES = sorted((ROOT / "api" / "pages").iterdir())
PAGES = ["/", "/docs"]
FROM_ELSEWHERE = re.compile(r"(?:https?|wss?):|[\"'(`]\s*//|@import|\burl\(", re.IGNORECASE)
# Ways to make HTML or code out of text.
DANGEROUS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|createContextualFragment"
    r"|srcdoc|javascript:|\son\w+=|setHTML"
)
MOST_LINES = 250


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_names_nothing_outside(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert FROM_ELSEWHERE.findall(text) == []
    assert DANGEROUS.findall(text) == []
    assert len(text.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_and_all_that_it_loads(service: Service, http: aiohttp.ClientSession, page: str) -> None:
    url = service.url.removesuffix("/v1") + page
    async with http.get(url) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["content-security-policy"].split("; ")
        html = await answer.text()
    assert "default-src 'none'" in policy
    assert {source for rule in policy for source in rule.split(" ")[1:]} <= {"'none'", "'self'", "data:"}
    loaded = [urljoin(url, place) for place in re.findall(r'(?:src|href)="([^"#]+)"', html) if place != "data:,"]
    assert len(loaded) >= 3
    for place in loaded:
        assert place.startswith(service.url.removesuffix("/v1"))
        async with http.get(place) as answer:
            assert answer.status == 200, place
            assert answer.headers["x-request-id"]
            assert answer.headers.get("x-content-type-options", "nosniff") == "nosniff"


@pytest.mark.parametrize("file", ["none.js", "..%2fmain.py", "talk.js.map"])
async def test_nothing_else_is_served(service: Service, http: aiohttp.ClientSession, file: str) -> None:
    async with http.get(f"{service.url.removesuffix('/v1')}/pages/{file}") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "unknown_url"
