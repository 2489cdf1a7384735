"""The playground in a real browser, as a person uses it; the page's way to the service can be cut."""

import json
from collections.abc import AsyncIterator

import pytest

from local.children import HOST
from tests.browser import CHROMIUM, Page, browser_page
from tests.chaos.gate import Gate, gate_to
from tests.conftest import StartService
from tests.fake_upstream import TOKENS
from tests.running import Part, Service
from tests.talking import release

pytestmark = [
    pytest.mark.anyio,
    # A browser is no package of Python's, and nobody should need one to work on the queue. CI installs it, or fails.
    pytest.mark.skipif(CHROMIUM is None, reason="there is no browser: apt-get install chromium"),
]

KEY = "a key"
WORDS = " ".join(f"word{number}" for number in range(1, TOKENS + 1))
LAST = "document.querySelector('#log .assistant:last-of-type .text')?.textContent"
IDLE = "!document.getElementById('send').disabled"


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part) -> Service:
    return await start_service(
        OPENAI_BASE_URL=f"http://{HOST}:{upstream.port}/v1", MODEL="fake-history", API_KEY=KEY, AUTH=""
    )


@pytest.fixture(scope="module")
async def way(service: Service) -> AsyncIterator[Gate]:
    async with gate_to(service.api.port) as gate:
        yield gate


@pytest.fixture(scope="module")
async def page(anyio_backend: str, way: Gate) -> AsyncIterator[Page]:  # noqa: ARG001 - one event loop for all
    """Signed in with the key. In the end: nothing was asked of anybody else, and nothing was complained of."""
    async with browser_page() as page:
        await page.open(f"http://{HOST}:{way.port}/")
        await page.until("document.getElementById('trouble').innerText")
        assert "The API key is missing or wrong" in await page.text("#trouble")
        assert "invalid_api_key" in await page.text("#trouble")
        assert await page.run("document.activeElement.id") == "key"
        await page.run(
            f"let key = document.getElementById('key'); key.value = {KEY!r}; key.dispatchEvent(new Event('change'))"
        )
        await page.until("[...document.getElementById('model').options].some((one) => one.value === 'fake-tool')")
        assert await page.text("#trouble") == ""
        yield page
        assert page.complaints == []
        assert {url.split("/")[2] for url in page.requests if not url.startswith("data:")} == {f"{HOST}:{way.port}"}


async def choose(page: Page, model: str) -> None:
    await page.run(f"document.getElementById('model').add(new Option({model!r}, {model!r}, true, true))")


async def ask(page: Page, text: str) -> None:
    """In a new conversation, with the keyboard."""
    await page.run("document.getElementById('new').click()")
    await say(page, text)


async def say(page: Page, text: str) -> None:
    await page.run("document.getElementById('text').focus()")
    await page.say("Input.insertText", text=text)
    for kind in ("keyDown", "keyUp"):
        await page.say("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)


async def load_anew(page: Page) -> None:
    await page.run("window.old = true")
    await page.say("Page.reload")
    await page.until("window.old === undefined && document.readyState === 'complete'")


async def test_a_conversation(page: Page) -> None:
    await choose(page, "fake-history")
    await ask(page, "first question")
    await page.until(f"{IDLE} && {LAST} === 'user: first question'")
    await say(page, "second question")
    whole = "user: first question\nassistant: user: first question\nuser: second question"
    await page.until(f"{IDLE} && {LAST} === {json.dumps(whole)}")
    usage = await page.text("#log .usage:last-of-type")
    assert "tokens in" in usage
    assert "fake-history" in usage
    assert await page.text("#trouble") == ""


async def test_past_conversations(page: Page) -> None:
    """After the page was loaded anew they are there, newest first, and can be gone on with."""
    await choose(page, "fake-history")
    for text in ("about tea", "about coffee"):
        await ask(page, text)
        await page.until(f"{IDLE} && {LAST} === {json.dumps(f'user: {text}')}")
    await load_anew(page)
    titles = "[...document.querySelectorAll('#conversations button')].map((one) => one.textContent)"
    await page.until(f"{titles}.slice(0, 2).join() === 'about coffee,about tea'")
    await page.run("document.querySelectorAll('#conversations button')[1].click()")
    await page.until(f"{LAST} === 'user: about tea'")
    assert await page.run("document.querySelector('#conversations [aria-current]').textContent") == "about tea"
    await choose(page, "fake-history")
    await say(page, "more")
    whole = "user: about tea\nassistant: user: about tea\nuser: more"
    await page.until(f"{IDLE} && {LAST} === {json.dumps(whole)}")


async def test_what_is_said_never_becomes_html(page: Page) -> None:
    text = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    await choose(page, "fake-history")
    await ask(page, text)
    await page.until(f"{IDLE} && {LAST} === {json.dumps(f'user: {text}')}")
    assert await page.run("document.querySelectorAll('#log img, #log script').length") == 0
    assert await page.run("window.hacked === undefined")


async def test_a_cut_stream_goes_on(page: Page, way: Gate, upstream: Part) -> None:
    await choose(page, "fake-hold-playground")
    await ask(page, "hello")
    await page.until(f"{LAST} === 'word1 word2 word3 '")
    way.shut = True
    assert way.cut() >= 1
    await release(upstream, "playground")
    await page.until("document.getElementById('status').innerText.includes('broke')")
    way.shut = False
    await page.until(f"{IDLE} && {LAST} === {WORDS!r}")
    assert await page.run("document.querySelectorAll('#log .item').length") == 2
    assert await page.text("#trouble") == ""


async def test_a_page_that_was_reloaded_goes_on(page: Page, upstream: Part) -> None:
    await choose(page, "fake-hold-reloaded")
    await ask(page, "the question")
    await page.until(f"{LAST} === 'word1 word2 word3 '")
    await load_anew(page)
    await page.until(f"{LAST} === 'word1 word2 word3 '")
    assert "the question" in await page.text("#log .user")
    await release(upstream, "reloaded")
    await page.until(f"{IDLE} && {LAST} === {WORDS!r}")
    assert await page.run("document.querySelectorAll('#log .item').length") == 2


async def test_cancel(page: Page) -> None:
    await choose(page, "fake-slow-50ms")
    await ask(page, "hello")
    await page.until(f"({LAST} ?? '').startsWith('word1 ')")
    await page.run("document.getElementById('cancel').click()")
    await page.until(f"{IDLE} && document.getElementById('status').innerText === 'Cancelled.'")
    assert await page.run(LAST) != WORDS


@pytest.mark.parametrize(("model", "told"), [("fake-500", "upstream_error"), ("fake-400", "upstream_rejected")])
async def test_errors_are_told_in_words(page: Page, model: str, told: str) -> None:
    await choose(page, model)
    await ask(page, "hello")
    await page.until(f"{IDLE} && document.getElementById('trouble').innerText.includes({told!r})")


async def test_a_deleted_conversation_is_gone(page: Page) -> None:
    await choose(page, "fake")
    await ask(page, "hello")
    await page.until(f"{IDLE} && {LAST} === {WORDS!r}")
    await page.run("document.getElementById('delete').click()")
    await page.until("document.getElementById('log').childElementCount === 0")
    assert await page.text("#trouble") == ""


async def test_the_reference(page: Page, way: Gate) -> None:
    await page.open(f"http://{HOST}:{way.port}/docs")
    await page.until("document.getElementById('create_response') !== null")
    titles = await page.run("[...document.querySelectorAll('section.operation h3')].map((one) => one.textContent)")
    assert {"POST /v1/responses", "GET /v1/models/{model}", "GET /livez"} <= set(titles)
    assert await page.run("document.querySelector('#schema-ResponseOutputTextDeltaEvent').innerText.includes('delta')")
