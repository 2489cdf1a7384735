"""What one user does, once: each act notes in the ledger what was said, and whether it was acknowledged."""

import time
import uuid

import aiohttp
import orjson

from core.queue import SOCKET_TIMEOUT_SECONDS
from tests.chaos.said import Keyed, Talk, answered, text_of
from tests.chaos.scene import Address, Json, Scene

APPENDED = 20
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
# The last acknowledged items must be among the newest that are listed, whatever came between them unheard.
LOOKED_AT, LISTED = 10, 100


async def begin_talk(stage: Scene, pod: Address) -> Talk:
    status, answer = await stage.post(pod, "conversations", {})
    assert status == 200, answer
    talk = Talk(answer["id"])
    stage.ledger.talks.append(talk)
    return talk


async def append(stage: Scene, pod: Address, talk: Talk, count: int = APPENDED, texts: list[str] | None = None) -> int:
    """Add items to a conversation; the status, 0 without an answer."""
    said = texts or [stage.ledger.text() for _ in range(count)]
    items = [{"type": "message", "role": "user", "content": text} for text in said]
    return await _attempt(stage, pod, talk, f"conversations/{talk.conversation}/items", {"items": items}, said)


async def turn(stage: Scene, pod: Address, talk: Talk, *, text: str = "", **fields: object) -> int:
    """A turn that is not streamed; the echo answers what was said, other models what they like."""
    said = text or stage.ledger.text()
    body = {"input": said, "conversation": talk.conversation, **fields}
    return await _attempt(stage, pod, talk, "responses", body, [said])


async def keyed_turn(stage: Scene, pod: Address, talk: Talk) -> int:
    """A turn with an Idempotency-Key; one that was not answered is asked again, with its key, and by any process."""
    if talk.asking is None:
        talk.asking = Keyed(stage.ledger.text(), str(uuid.uuid4()))
    said, key = talk.asking
    body = {"input": said, "conversation": talk.conversation}
    status = await _attempt(stage, pod, talk, "responses", body, [said], key)
    if status == 200:
        talk.asking = None
    return status


async def _attempt(
    stage: Scene, pod: Address, talk: Talk, path: str, body: Json, said: list[str], key: str = ""
) -> int:  # fmt: skip
    stage.ledger.operations += 1
    try:
        status, answer = await stage.post(pod, path, body, key)
    except (aiohttp.ClientError, TimeoutError) as error:
        stage.ledger.refused[type(error).__name__] += 1
        status, answer = 0, {}
    if status != 200:
        if answer:
            stage.ledger.refused[answer["error"]["code"]] += 1
        talk.doubt(said)
    elif "output" not in answer:
        talk.hear(said)
    elif answer["output"]:
        text = "".join(part["text"] for item in answer["output"] for part in item["content"])
        talk.hear([*said, answered(text)])
        talk.responses.append(answer["id"])
    else:
        # Closed after its process died: a turn that produced nothing leaves its conversation as it was.
        talk.doubt(said)
        talk.responses.append(answer["id"])
    return status


async def streamed_turn(stage: Scene, pod: Address, talk: Talk, **fields: object) -> str:
    """Listen to the end; the terminal event's type, or what went wrong instead."""
    ledger, said = stage.ledger, stage.ledger.text()
    ledger.operations += 1
    body = {"input": said, "conversation": talk.conversation, "stream": True, **fields}
    heard, end, response = "", "", ""
    try:
        async with stage.http.post(f"{pod.url}/responses", json=body) as answer:
            if answer.status != 200:
                code: str = orjson.loads(await answer.read())["error"]["code"]
                ledger.refused[code] += 1
                talk.doubt([said])
                return code
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    event = orjson.loads(line[6:])
                    heard += event["delta"] if event["type"] == "response.output_text.delta" else ""
                    if event["type"] in TERMINAL:
                        end, response = event["type"], event["response"]["id"]
    except (aiohttp.ClientError, TimeoutError) as error:
        ledger.refused[type(error).__name__] += 1
        end = type(error).__name__
    if end == "response.completed":
        talk.hear([said, answered(heard)])
        talk.responses.append(response)
    else:
        talk.doubt([said])
        talk.unsure.add(answered(heard))
    return end


async def look(stage: Scene, pod: Address, talk: Talk) -> None:
    """A reader sees what was acknowledged last, from any process; note it if not.

    But for readers who find Redis away, or their way to it cut: they see what PostgreSQL has.
    """
    url = f"{pod.url}/conversations/{talk.conversation}/items?order=desc&limit={LISTED}"
    calm, began = await stage.calm(), time.monotonic()
    try:
        status, page = await stage.call("GET", url)
    except (aiohttp.ClientError, TimeoutError):
        return
    if calm is None or time.monotonic() - began > SOCKET_TIMEOUT_SECONDS or await stage.calm() != calm:
        return
    stage.ledger.looked += 1
    newest = talk.told[-LOOKED_AT:]
    shown = [text_of(orjson.dumps(item)) for item in reversed(page["data"])] if status == 200 else []
    seen = [text for text in shown if text in newest]
    if status == 404 or (status == 200 and seen != newest):
        stage.ledger.stale.append(f"{talk.conversation} showed {seen} instead of {newest} (status {status})")


async def delete(stage: Scene, pod: Address, talk: Talk) -> int:
    """The whole conversation; the status, 0 without an answer."""
    stage.ledger.operations += 1
    sure = talk.deleted is not None
    talk.deleted = None
    try:
        status, _ = await stage.call("DELETE", f"{pod.url}/conversations/{talk.conversation}")
    except (aiohttp.ClientError, TimeoutError):
        return 0
    # Not found: the one before was carried out, though nobody said so.
    if status == 200 or (status == 404 and not sure):
        talk.deleted = True
        return 200
    return status
