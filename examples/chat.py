"""A chat in the terminal: each line is a turn, Ctrl-C stops an answer, Ctrl-D ends the chat."""

import argparse
import os
import readline  # noqa: F401 - gives input() its arrow keys
from contextlib import suppress

from openai import APIError, OpenAI
from openai.types.responses import ResponseStreamEvent


def show(event: ResponseStreamEvent) -> None:
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
    elif event.type == "response.failed" and event.response.error:
        print(f"[failed: {event.response.error.message}]", end="")
    elif event.type == "response.incomplete" and event.response.incomplete_details:
        print(f" [cut off: {event.response.incomplete_details.reason}]", end="")


def answer(client: OpenAI, conversation: str, text: str) -> None:
    """Send one message and print the answer while it comes."""
    response = None
    try:
        with client.responses.create(conversation=conversation, input=text, stream=True) as stream:
            for event in stream:
                if event.type == "response.created":
                    response = event.response.id
                show(event)
        print()
    except KeyboardInterrupt:
        print(" [stopped]")
        if response:
            with suppress(APIError):
                client.responses.cancel(response)
    except APIError as error:
        print(f"[{error.message}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversation", metavar="ID", help="continue this conversation")
    wanted = parser.parse_args().conversation
    url = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:4000/v1")
    client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
    try:
        conversation = (client.conversations.retrieve(wanted) if wanted else client.conversations.create()).id
    except APIError as error:
        raise SystemExit(f"{url}: {error.message}") from None
    print(f"conversation {conversation}")
    while True:
        try:
            text = input("> ").strip()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return
        if text:
            answer(client, conversation, text)


if __name__ == "__main__":
    main()
