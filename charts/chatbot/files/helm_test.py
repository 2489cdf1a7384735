"""What `helm test` runs in the API's image: a chat, a stream that is resumed, and a look into PostgreSQL for both."""

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse
from typing import Any

from core.settings import Environment, postgres_settings
from core.store import UNREACHABLE, connect

API_URL, WAIT_SECONDS = sys.argv[1], float(sys.argv[2])
PAUSE_SECONDS = 0.2
REQUEST_SECONDS = 120
TALK = ["user", "assistant", "user", "assistant"]


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> HTTPResponse:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{API_URL}{path}", data, headers, method=method)  # noqa: S310
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=REQUEST_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
    return answer


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    with ask(method, path, body) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def events(method: str, path: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    with ask(method, path, body) as answer:
        return [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]


def completed(response: dict[str, Any]) -> None:
    if response["status"] != "completed":
        raise SystemExit(f"the response is {response['status']}: {response.get('error')}")


def chat() -> str:
    """The conversation."""
    conversation: str = call("POST", "/v1/conversations", {})["id"]
    completed(call("POST", "/v1/responses", {"conversation": conversation, "input": "Say tea, please."}))
    print(f"an answer in {conversation}")
    body = {"conversation": conversation, "input": "And now milk.", "stream": True}
    seen = events("POST", "/v1/responses", body)
    completed(seen[-1]["response"])
    begun = seen[0]["response"]["id"]
    # The Service may lead to another pod this time.
    again = events("GET", f"/v1/responses/{begun}?stream=true&starting_after={seen[0]['sequence_number']}")
    if again != seen[1:]:
        raise SystemExit(f"the stream had {len(seen)} events, and {len(again)} after its first one when it was resumed")
    print(f"a stream of {len(seen)} events, the same when it was resumed")
    return conversation


async def stored(conversation: str) -> list[str]:
    """The roles of the conversation's items in PostgreSQL."""
    connection = await connect(postgres_settings(Environment()), "chatbot-helm-test")
    try:
        rows = await connection.fetch(
            "SELECT item->>'role' AS role FROM items WHERE conversation = $1 ORDER BY position", conversation
        )
        # Models that reason have items of no role between.
        return [row["role"] for row in rows if row["role"]]
    finally:
        await connection.close()


async def main() -> None:
    conversation = chat()
    end = time.monotonic() + WAIT_SECONDS
    roles: list[str] = []
    while roles != TALK:
        if time.monotonic() > end:
            raise SystemExit(f"PostgreSQL has {roles or 'nothing'} of it: does the worker run?")
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            roles = await stored(conversation)
        except UNREACHABLE as error:
            print(f"PostgreSQL: {type(error).__name__}", file=sys.stderr)
    print(f"PostgreSQL has its {len(roles)} messages")
    call("DELETE", f"/v1/conversations/{conversation}")


asyncio.run(main())
