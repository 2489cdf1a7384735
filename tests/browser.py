"""A real browser, Debian's Chromium without a window, spoken to through its DevTools protocol."""

import asyncio
import contextlib
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.running import Folder
from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--remote-debugging-port=0", "--window-size=1200,900", "about:blank",
)  # fmt: skip
START_SECONDS = 30.0
ANSWER_SECONDS = 20.0
# The number of a command whose answer nobody waits for.
UNHEARD = 0


class Page:
    """One tab. `requests` are the URLs that it has asked for, `complaints` what its console says of errors."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def read(self) -> None:
        """What the browser says, until it closes."""
        async for message in self._socket:
            told = json.loads(message.data)
            match told:
                case {"id": int(number)} if number != UNHEARD:
                    self._waiting.pop(number).set_result(told)
                case {"method": "Network.requestWillBeSent", "params": params}:
                    self.requests.append(params["request"]["url"])
                case {"method": "Runtime.exceptionThrown", "params": params}:
                    self.complaints.append(str(params["exceptionDetails"]))
                case {"method": "Log.entryAdded", "params": params} if params["entry"]["source"] == "security":
                    self.complaints.append(params["entry"]["text"])
                case {"method": "Page.javascriptDialogOpening"}:
                    accept = {"id": UNHEARD, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                    await self._socket.send_json(accept)
                case _:
                    pass

    async def say(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        told = await asyncio.wait_for(self._waiting[number], ANSWER_SECONDS)
        assert "error" not in told, told
        return told["result"]

    async def open(self, url: str) -> None:
        await self.say("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        told = await self.say("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str, timeout_seconds: float = 15.0) -> Any:
        return await wait_until(lambda: self.run(script), script, timeout_seconds)

    async def text(self, selector: str) -> str:
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).innerText"))


@contextlib.asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    assert CHROMIUM is not None
    profile = Folder()
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *OPTIONS,
        f"--user-data-dir={profile.path}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port_file = profile.path / "DevToolsActivePort"
        await wait_until(lambda: port_file.exists() and port_file.read_text().count("\n"), "a browser", START_SECONDS)
        port = port_file.read_text().split("\n", 1)[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json(content_type=None)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                reading = asyncio.create_task(page.read())
                for domain in ("Page", "Network", "Runtime", "Log"):
                    await page.say(f"{domain}.enable")
                yield page
                reading.cancel()
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        profile.remove()
