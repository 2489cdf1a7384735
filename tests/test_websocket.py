"""Responses over a WebSocket, through the official SDK and, where that would not do it, from the socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.resources.responses.responses import AsyncResponsesConnection
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core.queue import QUEUE
from tests.chatting import TERMINAL
from tests.conftest import StartService
from tests.contract import validate_stream
from tests.ownership import violations
from tests.running import Part, Service
from tests.talking import Json, asked, context, drained, forget_hot, release, talk, talk_now
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

BEGINNING = "word1 word2 word3 "


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def url_of(service: Service) -> str:
    return f"{service.url.replace('http', 'ws')}/responses"


@asynccontextmanager
async def opened(service: Service) -> AsyncIterator[ClientConnection]:
    async with connect(url_of(service)) as socket:
        yield socket


async def told(socket: ClientConnection) -> Json:
    message = await asyncio.wait_for(socket.recv(), 10)
    assert isinstance(message, str)
    event: Json = orjson.loads(message)
    return event


async def kinds_to_the_end(socket: ClientConnection) -> list[str]:
    kinds: list[str] = []
    while True:
        try:
            kinds.append((await told(socket))["type"])
        except ConnectionClosed:
            return kinds


async def refused(socket: ClientConnection, frame: str | bytes) -> tuple[int, str, str | None]:
    await socket.send(frame)
    event = await told(socket)
    assert event["type"] == "error"
    assert event["error"]["message"]
    return event["status"], event["error"]["code"], event["error"]["param"]


async def turn(connection: AsyncResponsesConnection, **body: Any) -> list[Json]:
    """The events of one response, or the one error event."""
    await connection.response.create(**body)
    events: list[Json] = []
    while not events or events[-1]["type"] not in (*TERMINAL, "error"):
        events.append((await asyncio.wait_for(connection.recv(), 10)).to_dict())
    if events[-1]["type"] != "error":
        validate_stream(events)
    return events


async def end_of(connection: AsyncResponsesConnection, **body: Any) -> Json:
    response: Json = (await turn(connection, **body))[-1]["response"]
    return response


async def test_a_chain_of_stored_turns(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """What went over the socket is what GET and another stream tell, byte for byte."""
    async with client.responses.connect() as connection:
        events = await turn(connection, model="fake", input="socket one")
        first = events[-1]["response"]
        assert [event.to_dict() async for event in await client.responses.retrieve(first["id"], stream=True)] == events
        second = await end_of(connection, input="socket two", previous_response_id=first["id"])
        assert (await context(upstream, "socket two"))[0] == "user: socket one"
        assert second["previous_response_id"] == first["id"]
    assert (await client.responses.retrieve(second["id"])).to_dict() == second
    await drained(redis)
    assert await violations(redis) == []


def test_the_synchronous_client(service: Service) -> None:
    with talk_now(service) as client, client.responses.connect() as connection:
        connection.response.create(model="echo", input="said at once")
        last: Any = next(event for event in connection if event.type in TERMINAL)
        assert last.response.output_text == "said at once"


async def test_an_unstored_chain_lives_in_its_connection(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    await drained(redis)
    async with client.responses.connect() as connection:
        first = await end_of(connection, model="fake-bench-2", input="chain one", store=False)
        second = await end_of(
            connection, model="fake-bench-2", input="chain two", store=False, previous_response_id=first["id"]
        )
        # Any of the last ones can be continued, not only the very last.
        for previous in (second["id"], first["id"]):
            await end_of(connection, input=f"chain {previous}", store=False, previous_response_id=previous)
        said = ["user: chain one", "assistant: word1 word2", "user: chain two", "assistant: word1 word2"]
        assert await context(upstream, f"chain {second['id']}") == [*said, f"user: chain {second['id']}"]
        assert await context(upstream, f"chain {first['id']}") == [*said[:2], f"user: chain {first['id']}"]
        async with client.responses.connect() as other:
            error = (await turn(other, input="x", store=False, previous_response_id=second["id"]))[-1]
            assert (error["status"], error["error"]["code"]) == (400, "previous_response_not_found")
        assert await redis.llen(QUEUE) == 0
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(second["id"])


async def test_a_stored_turn_continues_an_unstored_one(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """As often as one likes: all that the unstored one had is stored along, each time as items of their own."""
    async with client.responses.connect() as connection:
        first = await end_of(connection, model="fake-bench-2", input="light", store=False)
        kept = [
            await end_of(connection, model="fake-bench-2", input=f"heavy {number}", previous_response_id=first["id"])
            for number in (1, 2)
        ]
    await client.responses.create(input="heavier", previous_response_id=kept[0]["id"])
    said = ["user: light", "assistant: word1 word2", "user: heavy 1", "assistant: word1 word2", "user: heavier"]
    assert await context(upstream, "heavier") == said
    await forget_hot(redis)
    pages = [await client.responses.input_items.list(one["id"]) for one in kept]
    assert [len(page.data) for page in pages] == [3, 3]


async def test_a_warm_up_asks_nobody(client: AsyncOpenAI, upstream: Part) -> None:
    async with client.responses.connect() as connection:
        events = await turn(connection, model="fake", input="warm up", generate=False)
        assert [event["type"] for event in events] == [
            "response.created", "response.in_progress", "response.completed",
        ]  # fmt: skip
        assert await asked(upstream, "warm up") == []
        await end_of(connection, input="warmed", previous_response_id=events[-1]["response"]["id"])
        assert await context(upstream, "warmed") == ["user: warm up", "user: warmed"]


async def test_a_failed_continuation_is_forgotten(client: AsyncOpenAI) -> None:
    async with client.responses.connect() as connection:
        first = await end_of(connection, model="fake", input="x", store=False)
        failed = await end_of(connection, model="fake-400", input="y", store=False, previous_response_id=first["id"])
        assert failed["status"] == "failed"
        for lost in (first["id"], failed["id"], "resp_unknown"):
            error = (await turn(connection, input="z", store=False, previous_response_id=lost))[-1]["error"]
            assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
        assert (await end_of(connection, model="fake", input="again"))["status"] == "completed"


async def test_one_turn_at_a_time(client: AsyncOpenAI, upstream: Part) -> None:
    async with client.responses.connect() as connection:
        await connection.response.create(model="fake-hold-once", input="first of two")
        while (event := await connection.recv()).type != "response.output_text.delta":
            pass
        await connection.response.create(model="fake", input="second of two")
        while (event := await connection.recv()).type != "error":
            pass
        assert (event.status, event.error.code) == (409, "response_running")
        await release(upstream, "once")
        while (event := await connection.recv()).type not in TERMINAL:
            pass
        assert event.type == "response.completed"
        assert await asked(upstream, "second of two") == []


@pytest.mark.parametrize(
    ("frame", "status", "code", "param"),
    [
        ("", 400, "invalid_json", None),
        ("{", 400, "invalid_json", None),
        ("[]", 400, "invalid_type", None),
        ("{}", 400, "missing_required_parameter", "type"),
        ('{"type":"response.cancel"}', 400, "invalid_value", "type"),
        ('{"type":"response.create"}', 400, "missing_required_parameter", "input"),
        ('{"type":"response.create","input":1}', 400, "invalid_type", "input"),
        ('{"type":"response.create","input":"a\\u0000b"}', 400, "invalid_value", "input"),
        ('{"type":"response.create","input":"a\\ud800b"}', 400, "invalid_value", "input"),
        ('{"type":"response.create","input":"x","stream":false}', 400, "invalid_value", "stream"),
        ('{"type":"response.create","input":"x","background":true}', 400, "invalid_value", "background"),
        ('{"type":"response.create","input":"x","generate":false,"conversation":"conv_1"}', 400, "invalid_value",
         "generate"),
        ('{"type":"response.create","input":"x","nonsense":1}', 400, "unknown_parameter", "nonsense"),
        ('{"type":"response.create","input":"x","conversation":"conv_none"}', 404, "conversation_not_found",
         "conversation"),
        (b'{"type":"response.create","input":"x"}', 400, "invalid_type", None),
    ],
)  # fmt: skip
async def test_a_bad_frame(asking_service: Service, frame: str | bytes, status: int, code: str, param: str) -> None:
    """It is told, and the connection stays."""
    async with opened(asking_service) as socket:
        assert await refused(socket, frame) == (status, code, param)
        await socket.send('{"type":"response.create","model":"fake","input":"fine"}')
        assert (await told(socket))["type"] == "response.created"


async def test_a_frame_over_the_limit(start_service: StartService) -> None:
    service = await start_service(worker=False, MODEL="echo", BODY_LIMIT_BYTES="2000")
    async with opened(service) as socket:
        await socket.send(orjson.dumps({"type": "response.create", "input": "x" * 2000}).decode())
        with pytest.raises(ConnectionClosed) as closed:
            await told(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_who_may_not_come_in(asking_service: Service, start_service: StartService) -> None:
    """Neither without the key, nor to another path, nor, where no key is asked for, from another site's page."""
    locked = await start_service(worker=False, AUTH="", API_KEY="a secret", MODEL="echo")
    attempts = [
        (url_of(locked), None, 401, "invalid_api_key"),
        (f"{url_of(asking_service)}/x", None, 404, "unknown_url"),
        (url_of(asking_service), "http://elsewhere.example", 403, "foreign_origin"),
    ]
    for url, origin, status, code in attempts:
        with pytest.raises(InvalidStatus) as answer:
            await connect(url, origin=origin)  # type: ignore[arg-type]
        assert answer.value.response.status_code == status
        assert answer.value.response.headers["x-request-id"].startswith("req_")
        assert orjson.loads(answer.value.response.body or b"")["error"]["code"] == code
    assert '"ERROR"' not in locked.api.log_text() + asking_service.api.log_text()
    async with talk(locked, "a secret") as client, client.responses.connect() as connection:
        assert (await end_of(connection, input="with the key"))["status"] == "completed"
    port = asking_service.api.port
    async with connect(url_of(asking_service), origin=f"http://127.0.0.1:{port}"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
async def test_a_client_that_leaves(client: AsyncOpenAI, upstream: Part, store: bool) -> None:
    """A stored turn goes on, an unstored one ends."""
    name, text = f"leaves{store}", f"leaves {store}"
    async with client.responses.connect() as connection:
        await connection.response.create(model=f"fake-hold-{name}", input=text, store=store)
        created: Any = await connection.recv()
        while (await connection.recv()).type != "response.output_text.delta":
            pass

    async def dropped() -> bool:
        return bool((await asked(upstream, text))[0]["dropped"])

    if not store:
        await wait_until(dropped, "the upstream's request is given up")
        return
    await release(upstream, name)
    rest = [event async for event in await client.responses.retrieve(created.response.id, stream=True)]
    assert rest[-1].type == "response.completed"
    assert not await dropped()


async def test_a_turn_is_cancelled_from_elsewhere(client: AsyncOpenAI) -> None:
    async with client.responses.connect() as connection:
        await connection.response.create(model="fake-hang-middle", input="cancel me")
        created: Any = await connection.recv()
        while (await connection.recv()).type != "response.output_text.delta":
            pass
        cancelled = await asyncio.wait_for(client.responses.cancel(created.response.id), 5)
        while (event := await connection.recv()).type not in TERMINAL:
            pass
        last: Any = event
        assert last.response == cancelled
        assert cancelled.output_text == BEGINNING


async def test_a_connections_time_ends(start_service: StartService, asking_service: Service, upstream: Part) -> None:
    """Behind the turn that it carries then."""
    url = asking_service.environment["OPENAI_BASE_URL"]
    service = await start_service(worker=False, OPENAI_BASE_URL=url, MODEL="fake", WEBSOCKET_SECONDS="1")
    async with opened(service) as socket, opened(service) as idle:
        await socket.send('{"type":"response.create","model":"fake-hold-late","input":"late"}')
        error = await told(idle)
        assert (error["status"], error["error"]["code"]) == (400, "websocket_connection_limit_reached")
        with pytest.raises(ConnectionClosed):
            await told(idle)
        await release(upstream, "late")
        kinds = await kinds_to_the_end(socket)
    assert kinds[-2:] == ["response.completed", "error"]


async def test_a_stop_waits_for_the_turn(start_service: StartService, asking_service: Service, upstream: Part) -> None:
    url = asking_service.environment["OPENAI_BASE_URL"]
    service = await start_service(worker=False, OPENAI_BASE_URL=url, MODEL="fake")
    async with opened(service) as socket, opened(service) as idle:
        await socket.send('{"type":"response.create","model":"fake-hold-stop","input":"stop"}')
        assert (await told(socket))["type"] == "response.created"
        stopping = asyncio.create_task(service.api.terminate())
        with pytest.raises(ConnectionClosed) as closed:
            await told(idle)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        await release(upstream, "stop")
        assert (await kinds_to_the_end(socket))[-1] == "response.completed"
        assert await stopping == 0
