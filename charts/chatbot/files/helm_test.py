"""What `helm test` runs in the API's image: one real chat, and a look into PostgreSQL whether the worker stored it."""

import asyncio
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from core.settings import Environment, postgres_settings
from core.store import UNREACHABLE, connect

API_URL, WAIT_SECONDS = sys.argv[1], float(sys.argv[2])
PAUSE_SECONDS = 0.2
REQUEST_SECONDS = 120


def call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{API_URL}{path}", data, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:  # noqa: S310
        return json.load(answer)


def chat(word: str) -> tuple[str, str]:
    """The conversation, and what the model said."""
    conversation = call("POST", "/v1/conversations", {})["id"]
    response = call("POST", "/v1/responses", {"conversation": conversation, "input": f"Say {word}, please."})
    if response["status"] != "completed":
        raise SystemExit(f"the response is {response['status']}: {response.get('error')}")
    return conversation, response["output"][-1]["content"][0]["text"]


async def stored(conversation: str) -> list[str]:
    """The roles of the conversation's items in PostgreSQL."""
    connection = await connect(postgres_settings(Environment()), "chatbot-helm-test")
    try:
        rows = await connection.fetch(
            "SELECT item->>'role' AS role FROM items WHERE conversation = $1 ORDER BY position", conversation
        )
        return [row["role"] for row in rows]
    finally:
        await connection.close()


async def main() -> None:
    end = time.monotonic() + WAIT_SECONDS
    try:
        conversation, answer = chat(f"tea-{secrets.token_hex(4)}")
    except urllib.error.HTTPError as error:
        raise SystemExit(f"the API answered {error.code}: {error.read().decode(errors='replace')}") from error
    print(f"asked in {conversation}, answered with {len(answer)} characters")
    roles: list[str] = []
    while roles[-1:] != ["assistant"]:
        if time.monotonic() > end:
            raise SystemExit(f"PostgreSQL has {roles or 'nothing'} of it: does the worker run?")
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            roles = await stored(conversation)
        except UNREACHABLE as error:
            print(f"PostgreSQL: {type(error).__name__}", file=sys.stderr)
    print(f"PostgreSQL has its {len(roles)} items")
    call("DELETE", f"/v1/conversations/{conversation}")


asyncio.run(main())
