"""Random and mutated bodies and HTTP messages: each is answered in our shapes, none with 500, and the process lives on.

`FUZZ_EXAMPLES=20000 make test TESTS=tests/test_fuzz.py` tries more.
"""

import http.client
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from local.children import HOST
from tests.contract import TERMINAL
from tests.documented import check_documented, check_documented_event, read_document, validate
from tests.running import Service
from tests.talking import ERROR_FIELDS
from tests.test_contract import BODIES

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
# Each is the seed of the changes that one example makes.
NUMBERS = st.integers(0, 2**32)
ANSWER_SECONDS = 10.0
# Of these nothing in the body can be named: it is none, or wrong as a whole.
WITHOUT_PARAM = {"invalid_json", "unsupported_content_type"}
MESSAGE = {"role": "user", "content": "hello"}
ITEMS = BODIES["every item"]["input"]
SEEDS: list[tuple[str, Any]] = [
    *(("/v1/responses", {**body, "model": "echo"}) for body in BODIES.values()),
    *(("/v1/responses", {**BODIES[name], "model": "echo", "store": False}) for name in ("plain", "everything")),
    ("/v1/responses/input_tokens", {"input": "hello"}),
    ("/v1/responses/compact", {"model": "echo", "input": ITEMS, "instructions": "Be brief"}),
    ("/v1/conversations", {"items": ITEMS, "metadata": {"a": "b"}}),
    ("/v1/conversations/CONVERSATION", {"metadata": {"a": "b", "c": ""}}),
    ("/v1/conversations/CONVERSATION/items", {"items": ITEMS}),
    ("/v1/chat/completions", {"messages": [MESSAGE], "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": [MESSAGE], "store": True, "metadata": {"conversation": "CONVERSATION"}}),
]
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**400, -(10**30), 1e308, "", " ", "auto", "\0", "\ud800", "é" * 100, "x" * 70_000,
    [], {}, [[]], [None], [MESSAGE] * 30, {"type": "message"}, {"type": []}, {"type": "x" * 500}, {"id": "msg_1"},
    {"type": "item_reference", "id": "../x"}, {"": ""}, {"a" * 300: 1}, {"$ref": "#"}, "resp_1", "conv_1",
]  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    match value:
        case dict():
            for name, member in value.items():
                yield from places(member, (*path, name))
        case list():
            for index, member in enumerate(value):
                yield from places(member, (*path, index))


def changed(value: Any, path: tuple[str | int, ...], change: Any) -> Any:
    """A copy with `change(old value)` at the path."""
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], change)
    return copy


def mutated(body: Any, chance: random.Random) -> Any:
    where = chance.choice(list(places(body)))

    def change(old: Any) -> Any:
        strange = chance.choice(STRANGE)
        match old, chance.randrange(4):
            case dict(), 0 if old:
                return {name: member for name, member in old.items() if name != chance.choice(list(old))}
            case dict(), 1:
                return {**old, chance.choice(["extra", *list(old)]): strange}
            case list(), 0:
                return [*old, strange]
            case list(), 1:
                return old * 2
            case _, 2:
                return [old]
            case _:
                return strange

    return changed(body, where, change)


def encoded(value: Any) -> bytes:
    """JSON also of what is none: NaN, halves of surrogate pairs, numbers of any size."""
    match value:
        case dict():
            return b"{" + b",".join(encoded(name) + b":" + encoded(member) for name, member in value.items()) + b"}"
        case list():
            return b"[" + b",".join(map(encoded, value)) + b"]"
        case str():
            return (
                b'"' + "".join(f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else sign for sign in value).encode() + b'"'
            )
        case bool() | None:
            return orjson.dumps(value)
        case _:
            return str(value).encode()


def scarred(raw: bytes, chance: random.Random) -> bytes:
    """Bytes cut out, put in, or doubled."""
    at = chance.randrange(len(raw) + 1)
    match chance.randrange(4):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + chance.randbytes(chance.randrange(1, 4)) + raw[at:]
        case 2:
            return raw[:at] + raw[at + 1 :]
        case _:
            return raw[:at] + raw[at // 2 :]


@pytest.fixture(scope="module")
def connection(service: Service) -> Iterator[http.client.HTTPConnection]:
    one = http.client.HTTPConnection(HOST, service.api.port, timeout=ANSWER_SECONDS)
    yield one
    one.close()


@pytest.fixture(scope="module")
def conversation(connection: http.client.HTTPConnection) -> str:
    connection.request("POST", "/v1/conversations", b"{}", {"content-type": "application/json"})
    made: Json = orjson.loads(connection.getresponse().read())
    return str(made["id"])


def check(connection: http.client.HTTPConnection, path: str, raw: bytes) -> None:
    connection.request("POST", path, raw, {"content-type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    check_documented("POST", path, answer.status, headers, body)
    assert answer.status < 500, body
    if answer.status != 200:
        error = orjson.loads(body)["error"]
        assert error.keys() == ERROR_FIELDS
        assert error["message"]
        assert error["param"] is not None or error["code"] in WITHOUT_PARAM or not raw.lstrip().startswith(b"{"), body
    # Nobody is shown our insides.
    assert not any(word in body for word in (b"Traceback", b"pydantic", b".py"))


def test_every_endpoint_with_a_body_is_tried() -> None:
    paths = {path.replace("CONVERSATION", "{conversation_id}") for path, _ in SEEDS}
    told = {path for path, methods in read_document()["paths"].items() if "requestBody" in methods.get("post", {})}
    assert paths == told


@FUZZ
@given(seed=st.sampled_from(SEEDS), changes=st.integers(1, 3), scars=st.integers(0, 4), number=NUMBERS)
def test_mutated_bodies(
    connection: http.client.HTTPConnection,
    conversation: str,
    seed: tuple[str, Any],
    changes: int,
    scars: int,
    number: int,
) -> None:
    chance = random.Random(number)  # noqa: S311 - no secret
    path, body = seed
    for _ in range(changes):
        body = mutated(body, chance)
    raw = encoded(body).replace(b"CONVERSATION", conversation.encode())
    # Most stay JSON: what is none is soon refused.
    raw = scarred(raw, chance) if scars == 0 else raw
    check(connection, path.replace("CONVERSATION", conversation), raw)


class Talk:
    """A WebSocket that is opened again whenever the service has closed it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: ClientConnection | None = None

    def ask(self, frame: bytes) -> list[Json]:
        """The events that come for it, the last one being an end; none when the connection was closed instead."""
        self._socket = self._socket or connect(self._url, max_size=None)
        events: list[Json] = []
        try:
            self._socket.send(frame, text=True)
            while not events or events[-1]["type"] not in (*TERMINAL, "error"):
                events.append(orjson.loads(self._socket.recv(timeout=ANSWER_SECONDS)))
        except ConnectionClosed as closed:
            # Text that is no UTF-8 ends a connection, by the protocol.
            if closed.rcvd is None or closed.rcvd.code != 1007:
                raise
            self._socket = None
            return []
        return events

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


@pytest.fixture(scope="module")
def talk(service: Service) -> Iterator[Talk]:
    one = Talk(f"{service.url.replace('http', 'ws')}/responses")
    yield one
    one.close()


@settings(FUZZ, max_examples=EXAMPLES // 2)
@given(name=st.sampled_from(list(BODIES)), changes=st.integers(1, 3), scars=st.integers(0, 4), number=NUMBERS)
def test_mutated_frames(talk: Talk, name: str, changes: int, scars: int, number: int) -> None:
    chance = random.Random(number)  # noqa: S311 - no secret
    body: Any = {"type": "response.create", **BODIES[name], "model": "echo"}
    for _ in range(changes):
        body = mutated(body, chance)
    raw = encoded(body)
    events = talk.ask(scarred(raw, chance) if scars == 0 else raw)
    for event in events:
        if event["type"] == "error":
            validate("WebSocketErrorEvent", event)
            assert event["status"] < 500
        else:
            check_documented_event(event)


BODY = b'{"input":"hello"}'
HEAD = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + BODY[:8] + b"\r\n9\r\n" + BODY[8:] + b"\r\n0\r\n\r\n"
GET = b"GET /v1/responses/resp_1?stream=true HTTP/1.1\r\nHost: x\r\n\r\n"
PING = b"\x89\x84\0\0\0\0ping"
OPENING = (
    b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAMES = {
    "nothing": b"",
    "empty lines": b"\r\n" * 100,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": GET.replace(b"HTTP/1.1", b"HTTP/9.9"),
    "a huge header": GET[:-2] + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
    "many headers": GET[:-2] + b"X: x\r\n" * 20_000 + b"\r\n",
    "a huge target": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a header": GET[:-2] + b"X: a\0b\r\n\r\n",
    "a folded header": GET[:-2] + b"X: a\r\n b\r\n\r\n",
    "a header without a name": GET[:-2] + b": a\r\n\r\n",
    "latin-1 in the target": b"GET /v1/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "latin-1 in headers": GET[:-2] + b"Idempotency-Key: \xe9\r\nAuthorization: \xff\r\n\r\n",
    "broken percent": b"GET /v1/responses/%zz%?after=%&limit=%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target": b"GET http://elsewhere.example/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length that is no number": HEAD + b"Content-Length: 1e3\r\n\r\n" + BODY,
    "an endless length": HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 17\r\nContent-Length: 5\r\n\r\n" + BODY,
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a body that is too short": HEAD + b"Content-Length: 99\r\n\r\n" + BODY,
    "a body that is too long": HEAD + b"Content-Length: 3\r\n\r\n" + BODY,
    "a chunk size that is none": CHUNKED.replace(b"8\r\n", b"zz\r\n", 1),
    "a huge chunk size": CHUNKED.replace(b"8\r\n", b"f" * 30 + b"\r\n", 1),
    "a chunk that is too short": CHUNKED.replace(b"8\r\n", b"7\r\n", 1),
    "no last chunk": CHUNKED[:-5],
    "an upgrade that is none": GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "two at once": WHOLE + WHOLE,
    "WebSocket, and then nothing": OPENING,
    "WebSocket, a frame without a mask": OPENING + b"\x81\x05hello",
    "WebSocket, no such opcode": OPENING + b"\x8f\x80\0\0\0\0",
    "WebSocket, a bit that means nothing": OPENING + b"\xf1\x80\0\0\0\0",
    "WebSocket, an endless frame": OPENING + b"\x81\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0" + BODY,
    "WebSocket, text that is no UTF-8": OPENING + b"\x81\x82\0\0\0\0\xc3\x28",
    "WebSocket, a long ping": OPENING + b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126,
    "WebSocket, going on with nothing": OPENING + b"\x80\x81\0\0\0\0x",
    "WebSocket, a close of one byte": OPENING + b"\x88\x81\0\0\0\0x",
    "WebSocket of another version": OPENING.replace(b"Version: 13", b"Version: 99"),
    "WebSocket without a key": OPENING.replace(b"Sec-WebSocket-Key", b"X"),
    "WebSocket with a key that is no ASCII": OPENING.replace(b"Key: d", b"Key: \xff"),
    "WebSocket with an upgrade that is none": OPENING.replace(b"websocket\r", b"web\xffsocket\r"),
    "WebSocket with a path that is no ASCII": OPENING.replace(b"/v1/responses", b"/v1/\xff"),
    "WebSocket with another header that is no ASCII": OPENING.replace(b"Host: x", b"Host: x\r\nAuthorization: \xff"),
    "WebSocket elsewhere": OPENING.replace(b"/v1/responses", b"/v1/models"),
}


def raw_answer(port: int, message: bytes) -> bytes:
    """What comes back until the connection ends; the sender says at once that nothing more will come."""
    with socket.create_connection((HOST, port), timeout=ANSWER_SECONDS) as one:
        got = b""
        try:
            one.sendall(message)
            one.shutdown(socket.SHUT_WR)
            while piece := one.recv(1 << 16):
                got += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return got


def check_alive(service: Service, got: bytes) -> None:
    """Refused or answered, or hung up on; and the next one is served."""
    assert got == b"" or got.startswith((b"HTTP/1.1 101", b"HTTP/1.1 2", b"HTTP/1.1 4")), got[:300]
    assert raw_answer(service.api.port, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(
        b'{"status":"ok"}'
    )


@pytest.mark.parametrize("name", FRAMES)
def test_http_that_is_none(service: Service, name: str) -> None:
    check_alive(service, raw_answer(service.api.port, FRAMES[name]))


@settings(FUZZ, max_examples=EXAMPLES // 4)
@given(
    message=st.sampled_from([WHOLE, CHUNKED, GET, OPENING + PING]),
    scars=st.integers(1, 3),
    number=NUMBERS,
)
def test_scarred_http(service: Service, message: bytes, scars: int, number: int) -> None:
    chance = random.Random(number)  # noqa: S311 - no secret
    for _ in range(scars):
        message = scarred(message, chance)
    check_alive(service, raw_answer(service.api.port, message))


def test_a_handshake_that_is_no_ascii_is_refused_in_our_shape(service: Service) -> None:
    got = raw_answer(service.api.port, FRAMES["WebSocket with a key that is no ASCII"])
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-request-id: req_" in head
    assert orjson.loads(body)["error"]["param"] == "sec-websocket-key"


def test_nothing_of_it_was_a_mistake_of_ours(service: Service) -> None:
    """Runs last: what nobody expected is logged with its traceback."""
    log = service.api.log_text()
    assert "Traceback" not in log
    assert "request failed" not in log
