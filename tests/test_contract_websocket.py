"""Every frame of WebSocket /v1/responses against the Open Responses specification and our own document."""

from typing import Any

import aiohttp
import orjson
import pytest

from tests.contract import TERMINAL, validate_stream, validate_websocket_error
from tests.documented import check_documented_event, validate
from tests.fake_scripts import SCRIPTS
from tests.running import Service
from tests.talking import Json
from tests.test_contract import BODIES

pytestmark = pytest.mark.anyio

NAMES = [name for name in BODIES if name not in SCRIPTS]
# One script for each way in which an answer is more than text.
NAMES += ["vllm", "refusal", "parts", "tool-pieces", "text-then-tool", "length", "filter", "openrouter-error", "html"]
WRONG: dict[str, Any] = {
    "no JSON": b"{",
    "no object": [],
    "no type": {"input": "hello"},
    "another type": {"type": "response.cancel"},
    "nothing to answer": {"type": "response.create"},
    "a wrong field": {"type": "response.create", "input": 5},
    "an unknown field": {"type": "response.create", "input": "hello", "nonsense": 1},
    "in the background": {"type": "response.create", "input": "hello", "background": True},
    "an unknown response": {"type": "response.create", "input": "hello", "previous_response_id": "resp_1"},
    "an unknown conversation": {"type": "response.create", "input": "hello", "conversation": "conv_1"},
}


def url_of(service: Service) -> str:
    return f"{service.url}/responses"


async def frames_of(socket: aiohttp.ClientWebSocketResponse, frame: bytes) -> list[Json]:
    """What comes until a turn, or the refusal of one, has ended."""
    await socket.send_str(frame.decode())
    frames: list[Json] = []
    while not frames or frames[-1]["type"] not in (*TERMINAL, "error"):
        message = await socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.TEXT
        assert "\n" not in message.data
        frames.append(orjson.loads(message.data))
    return frames


@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
async def test_every_kind_of_answer(asking_service: Service, store: bool) -> None:
    """All of them over one connection."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url_of(asking_service)) as socket:
        for name in NAMES:
            body = {key: value for key, value in BODIES[name].items() if key not in ("background", "store")}
            frame = {"type": "response.create", "model": "fake", **body, "store": store}
            frames = await frames_of(socket, orjson.dumps(frame))
            if frames[-1]["type"] == "error":
                # A turn that could not even begin: the specification's own words for it.
                check_error(frames, name)
                continue
            final = validate_stream(frames)
            assert final["store"] is store, name
            for event in frames:
                check_documented_event(event)


@pytest.mark.parametrize("name", WRONG)
async def test_every_kind_of_error(asking_service: Service, name: str) -> None:
    raw = WRONG[name] if isinstance(WRONG[name], bytes) else orjson.dumps(WRONG[name])
    async with aiohttp.ClientSession() as session, session.ws_connect(url_of(asking_service)) as socket:
        check_error(await frames_of(socket, raw), name)
        # The connection lives on.
        frames = await frames_of(socket, orjson.dumps({"type": "response.create", "model": "fake", "input": "hello"}))
        assert frames[-1]["type"] == "response.completed"


def check_error(frames: list[Json], name: str) -> None:
    assert len(frames) == 1, name
    validate_websocket_error(frames[0])
    validate("WebSocketErrorEvent", frames[0])
    assert frames[0]["status"] in (400, 404), name
