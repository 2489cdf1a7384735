"""A model provider in a pod: chat completions that say what the user said, as slowly as the model's name asks.

`slow-N` makes a pause of N milliseconds before each of the answer's characters; any other model makes none.
The standard library alone, since its source is mounted into a pod of the API's image.
"""

import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "quick", "object": "model", "created": 0, "owned_by": "us"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = _text(body["messages"][-1]["content"])
        slow = re.fullmatch(r"slow-(\d+)", body["model"])
        pause = int(slow[1]) / 1000 if slow else 0.0
        usage = {"prompt_tokens": 1, "completion_tokens": len(text), "total_tokens": 1 + len(text)}
        if not body.get("stream"):
            time.sleep(pause * len(text))
            message = {"role": "assistant", "content": text}
            self._answer(_whole("chat.completion", {"message": message, "finish_reason": "stop"}, usage))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for letter in text:
            time.sleep(pause)
            self._say(_whole("chat.completion.chunk", {"delta": {"content": letter}, "finish_reason": None}))
        self._say(_whole("chat.completion.chunk", {"delta": {}, "finish_reason": "stop"}))
        self._say({**_whole("chat.completion.chunk", None, usage)})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _answer(self, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _say(self, body: object) -> None:
        self._chunk(b"data: " + json.dumps(body).encode() + b"\n\n")

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """Nobody reads it."""


def _text(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _whole(kind: str, choice: dict[str, object] | None, usage: dict[str, int] | None = None) -> dict[str, object]:
    choices = [] if choice is None else [{"index": 0, **choice}]
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "slow", "choices": choices, "usage": usage}


if __name__ == "__main__":
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
