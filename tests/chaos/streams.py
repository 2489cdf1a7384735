"""Turns that are streamed, as their users see them."""

import aiohttp
import orjson

from tests.chaos.said import Talk
from tests.chaos.stage import Pod, Stage
from tests.chaos.users import answered

TERMINAL = ("response.completed", "response.incomplete", "response.failed")


async def streamed_turn(stage: Stage, pod: Pod, talk: Talk, **fields: object) -> str:
    """Listen to the end and note what was said; the terminal event's type, or what went wrong instead."""
    ledger, said = stage.ledger, stage.ledger.text()
    ledger.operations += 1
    body = {"input": said, "conversation": talk.conversation, "stream": True, **fields}
    heard, end, response = "", "", ""
    try:
        async with stage.http.post(f"{pod.url}/responses", json=body) as answer:
            if answer.status != 200:
                code: str = orjson.loads(await answer.read())["error"]["code"]
                ledger.refused[code] += 1
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
        talk.told += [said, answered(heard)]
        talk.responses.append(response)
    else:
        talk.unsure.update((said, answered(heard), answered(said)))
    return end
