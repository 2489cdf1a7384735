"""No tenant can see, count or guess at another tenant's data: its ids are answered as ids of nothing are.

One tenant asks for another one's ids at every endpoint, and for ids that nobody has: the answers are the same but for
the id. Afterwards the other one finds everything as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from tests.conftest import StartService
from tests.documented import read_document
from tests.running import Part, Service
from tests.talking import Json, asked, drained, release
from tests.test_tenants import block
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

OWNER, STRANGER = "owner", "stranger"
# Of each request's own.
OWN_HEADERS = {"x-request-id", "date"}
ITEM: Json = {"type": "message", "role": "user", "content": "a secret of the owner's"}
CHAT: Json = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}


@dataclass(frozen=True)
class Ids:
    """`conversation` holds `item`, `response` was made in it, `free` without one; `running` runs, `deleted` was one."""

    conversation: str
    item: str
    response: str
    free: str
    running: str
    deleted: str

    def nobodys(self) -> "Ids":
        """Ids of the same looks that nobody has."""
        return Ids(*(one[:-1] + ("0" if one[-1] != "0" else "1") for one in vars(self).values()))


class Client:
    def __init__(self, http: aiohttp.ClientSession, service: Service, tenant: str) -> None:
        self._http, self._url = http, service.url
        self._headers = {"Authorization": f"Bearer {tenant}-key"}

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        named = {**self._headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self._http.request(method, self._url + path, json=body, headers=named) as answer:
            kept = {name.lower(): value for name, value in answer.headers.items()}
            told = {name: value for name, value in kept.items() if name not in OWN_HEADERS}
            return answer.status, told, await answer.read()

    async def do(self, method: str, path: str, body: object = None) -> Json:
        status, _, answer = await self.ask(method, path, body)
        assert status == 200, answer
        done: Json = orjson.loads(answer)
        return done


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part, folder: Path) -> Service:
    keys = folder / "isolated.toml"
    keys.write_text(block(OWNER, "owner-key") + block(STRANGER, "stranger-key"))
    url = f"http://{upstream.host}:{upstream.port}/v1"
    return await start_service(AUTH="", KEYS_FILE=str(keys), OPENAI_BASE_URL=url, MODEL="fake")


@pytest.fixture(scope="module")
async def http(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ARG001 - one event loop for all
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture(scope="module")
async def owner(service: Service, http: aiohttp.ClientSession) -> Client:
    return Client(http, service, OWNER)


@pytest.fixture(scope="module")
async def stranger(service: Service, http: aiohttp.ClientSession) -> Client:
    return Client(http, service, STRANGER)


@pytest.fixture(scope="module")
async def ids(owner: Client, upstream: Part) -> AsyncIterator[Ids]:
    """Everything that one tenant may have, hot, with one turn that runs."""
    conversation = (await owner.do("POST", "/conversations", {"items": [ITEM], "metadata": {"secret": "x"}}))["id"]
    item = (await owner.do("GET", f"/conversations/{conversation}/items"))["data"][0]["id"]
    response = (await owner.do("POST", "/responses", {"input": "in it", "conversation": conversation}))["id"]
    free = (await owner.do("POST", "/responses", {"input": "without one"}))["id"]
    gone = (await owner.do("POST", "/conversations", {}))["id"]
    await owner.do("DELETE", f"/conversations/{gone}")
    held = {"model": "fake-hold-owner", "input": "held", "background": True}
    running = (await owner.do("POST", "/responses", held))["id"]

    async def reached() -> bool:
        state = await owner.do("GET", f"/responses/{running}")
        return state["status"] == "in_progress" and bool(await asked(upstream, "held"))

    await wait_until(reached, "the running turn")
    yield Ids(conversation, item, response, free, running, gone)
    await release(upstream, "owner")


@pytest.fixture(scope="module")
async def own(stranger: Client) -> Ids:
    """What the other tenant has itself."""
    conversation = (await stranger.do("POST", "/conversations", {"items": [ITEM]}))["id"]
    response = (await stranger.do("POST", "/responses", {"input": "mine", "conversation": conversation}))["id"]
    return Ids(conversation, "", response, "", "", "")


Question = tuple[str, str, Any]
"""Method, path, body."""


def questions(ids: Ids, own: Ids) -> list[Question]:
    """Every way to name an id to the service."""
    found: list[Question] = []

    def add(method: str, path: str, body: object = None) -> None:
        found.append((method, path, body))

    for response in (ids.response, ids.free, ids.running):
        path = f"/responses/{response}"
        add("GET", path)
        add("GET", f"{path}?stream=true")
        add("GET", f"{path}?stream=true&starting_after=1")
        add("POST", f"{path}/cancel")
        add("GET", f"{path}/input_items")
        add("GET", f"{path}/input_items?after={ids.item}")
        for given in ({"store": True}, {"store": False}, {"stream": True}, {"background": True}):
            add("POST", "/responses", {"input": "x", "previous_response_id": response, **given})
        add("POST", "/responses/input_tokens", {"input": "x", "previous_response_id": response})
        add("POST", "/responses/compact", {"model": "fake", "previous_response_id": response})
        add("DELETE", path)
    for conversation in (ids.conversation, ids.deleted):
        path = f"/conversations/{conversation}"
        add("GET", path)
        add("GET", f"{path}/items")
        add("GET", f"{path}/export")
        add("GET", f"{path}/items?after={ids.item}")
        add("GET", f"{path}/items/{ids.item}")
        add("POST", path, {"metadata": {"theirs": "now"}})
        add("POST", f"{path}/items", {"items": [ITEM]})
        add("DELETE", f"{path}/items/{ids.item}")
        for given in ({"store": True}, {"store": False}, {"stream": True}, {"background": True}):
            add("POST", "/responses", {"input": "x", "conversation": conversation, **given})
            add(
                "POST",
                "/responses",
                {"input": "x", "conversation": {"id": conversation}, **given},
            )
        add("POST", "/responses/input_tokens", {"input": "x", "conversation": conversation})
        for given in ({"store": True}, {"store": True, "stream": True}):
            body = {**CHAT, "metadata": {"conversation": conversation}, **given}
            add("POST", "/chat/completions", body)
        add("GET", f"/conversations?after={conversation}")
        add("DELETE", path)
    # Another one's item in places of one's own.
    mine = f"/conversations/{own.conversation}"
    add("GET", f"{mine}/items/{ids.item}")
    add("DELETE", f"{mine}/items/{ids.item}")
    add("GET", f"{mine}/items?after={ids.item}")
    add("GET", f"/responses/{own.response}/input_items?after={ids.item}")
    reference = [{"type": "item_reference", "id": ids.item}]
    elsewhere: list[Json] = [{"store": True}, {"store": False}, {"conversation": own.conversation}]
    for given in elsewhere:
        add("POST", "/responses", {"input": reference, **given})
    add("POST", "/responses/input_tokens", {"input": reference})
    add("POST", "/responses/compact", {"model": "fake", "input": reference})
    return found


async def difference(stranger: Client, ids: Ids, nobodys: Ids, question: Question, same: Question) -> str | None:
    """How the answers to these two differ otherwise than in the id that they name."""
    answers = []
    for known, (method, path, body) in ((ids, question), (nobodys, same)):
        status, headers, answer = await stranger.ask(method, path, body)
        shown = answer
        for name, value in vars(known).items():
            shown = shown.replace(value.encode(), name.encode())
        answers.append((status, headers, shown))
    if answers[0] != answers[1]:
        return f"{question}: {answers[0]} instead of {answers[1]}"
    # Where a list goes on behind an id, any id will do.
    fine = (200,) if question[1].startswith("/conversations?") else (400, 404)
    return None if answers[0][0] in fine else f"{question}: {answers[0]}"


async def refused(stranger: Client, ids: Ids, own: Ids) -> list[str]:
    nobodys = ids.nobodys()
    pairs = zip(questions(ids, own), questions(nobodys, own), strict=True)
    found = [await difference(stranger, ids, nobodys, *pair) for pair in pairs]
    return [one for one in found if one is not None]


async def picture(owner: Client, ids: Ids) -> list[object]:
    """What its owner reads of it."""
    paths = [
        *(f"/responses/{one}{more}" for one in (ids.response, ids.free) for more in ("", "/input_items")),
        *(f"/conversations/{ids.conversation}{more}" for more in ("", "/items", f"/items/{ids.item}")),
        f"/conversations/{ids.deleted}",
        f"/responses/{ids.running}",
    ]
    answers = [await owner.ask("GET", path) for path in paths]
    return [(status, orjson.loads(body)) for status, _, body in answers]


async def forget_stored(redis: Redis) -> None:
    """What Redis may do at any time with all that does not run."""
    await drained(redis)
    for key in [key async for key in redis.scan_iter()]:
        if await redis.ttl(key) >= 0:
            await redis.delete(key)


@pytest.mark.parametrize("hot", [True, False], ids=["hot", "cold"])
async def test_every_endpoint(
    owner: Client, stranger: Client, ids: Ids, own: Ids, redis: Redis, upstream: Part, hot: bool
) -> None:
    """All that is tried changes nothing, costs the provider nothing, and leaves no traces of the owner's."""
    await drained(redis)
    before, questions_before = await picture(owner, ids), len(await asked(upstream, "messages"))
    if not hot:
        await forget_stored(redis)
    keys = {key async for key in redis.scan_iter(f"*:{OWNER}:*")}
    assert await refused(stranger, ids, own) == []
    assert {key async for key in redis.scan_iter(f"*:{OWNER}:*")} == keys
    assert await picture(owner, ids) == before
    await forget_stored(redis)
    assert await picture(owner, ids) == before
    assert len(await asked(upstream, "messages")) == questions_before


async def test_over_a_websocket(service: Service, ids: Ids) -> None:
    nobodys = ids.nobodys()
    url = f"{service.url.replace('http', 'ws')}/responses"
    async with connect(url, additional_headers={"Authorization": f"Bearer {STRANGER}-key"}) as socket:

        async def told(**body: Any) -> bytes:
            await socket.send(orjson.dumps({"type": "response.create", "input": "x", **body}).decode())
            answer = await asyncio.wait_for(socket.recv(), 10)
            assert isinstance(answer, str)
            return answer.encode()

        for store in (True, False):
            for field, kinds in (
                ("previous_response_id", ("response", "free", "running")),
                ("conversation", ("conversation", "deleted")),
            ):
                for kind in kinds:
                    theirs, none = getattr(ids, kind), getattr(nobodys, kind)
                    answer = await told(**{field: theirs, "store": store})
                    assert answer.replace(theirs.encode(), none.encode()) == await told(**{field: none, "store": store})
                    assert b'"type":"error"' in answer


async def test_lists_hold_ones_own(owner: Client, stranger: Client, ids: Ids, own: Ids, redis: Redis) -> None:
    """While it is queued and when it is stored."""
    for _ in range(2):
        mine = await stranger.do("GET", "/conversations")
        assert [one["id"] for one in mine["data"]] == [own.conversation]
        assert (await stranger.do("GET", "/conversations?metadata[secret]=x"))["data"] == []
        theirs = [one["id"] for one in (await owner.do("GET", "/conversations?metadata[secret]=x"))["data"]]
        assert theirs == [ids.conversation]
        await forget_stored(redis)


async def test_an_idempotency_key_of_another_tenant(owner: Client, stranger: Client) -> None:
    """The same key is another one: neither its answer nor that it was used shows."""
    for path, body, other in (
        ("/conversations", {"items": [ITEM]}, {}),
        ("/responses", {"input": "once"}, {"input": "other"}),
        ("/chat/completions", {**CHAT, "store": True}, {**CHAT, "store": True, "temperature": 0}),
    ):
        answers = []
        for client, sent, key in (
            (owner, body, path),
            (stranger, body, path),
            (owner, body, f"{path}, the other way"),
            (stranger, other, f"{path}, the other way"),
        ):
            status, _, answer = await client.ask("POST", path, sent, Idempotency_Key=key)
            assert status == 200
            answers.append(orjson.loads(answer)["id"])
        assert len(set(answers)) == len(answers)


def test_no_endpoint_is_forgotten() -> None:
    """Every endpoint that names something is asked above."""
    names = Ids("CONVERSATION", "ITEM", "RESPONSE", "RESPONSE", "RESPONSE", "CONVERSATION")
    asked_for = {(method, path.partition("?")[0]) for method, path, _ in questions(names, names)} | {
        ("POST", "/conversations"),
        ("GET", "/models"),
        ("GET", "/models/{model}"),
    }
    told = {
        (method.upper(), path.removeprefix("/v1"))
        for path, methods in read_document()["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    ids = {"{conversation_id}": "CONVERSATION", "{item_id}": "ITEM", "{response_id}": "RESPONSE"}
    for template, name in ids.items():
        told = {(method, path.replace(template, name)) for method, path in told}
    assert told - asked_for == set()
