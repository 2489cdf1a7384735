"""A model server that costs as little as possible: ready bytes over a raw protocol, so that it is not what is measured.

A streamed answer comes token by token, PACE_SECONDS apart, so that nobody can pass several on in one read.
"""

import argparse
import asyncio
import json

TOKENS = 32
PACE_SECONDS = 0.001
USAGE = {"prompt_tokens": 12, "completion_tokens": TOKENS, "total_tokens": 12 + TOKENS}
WORDS = [f"word{number} " for number in range(TOKENS)]


def _http(body: bytes, content_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def _event(choices: list[dict[str, object]], usage: dict[str, int] | None = None) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": choices}
    body = {**chunk, "usage": usage} if usage else chunk
    return _chunked(b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n")


WHOLE = _http(
    json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "bench",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
            ],
            "usage": USAGE,
        }
    ).encode(),
    "application/json",
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = [_event([{"index": 0, "delta": {"content": word}}]) for word in WORDS]
LAST = (
    _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    + _event([], USAGE)
    + _chunked(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class ModelServer(asyncio.Protocol):
    """One connection; requests come one after the other, as HTTP clients without pipelining send them."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        marker = head.lower().find(b"content-length:")
        length = int(head[marker + 15 :].split(b"\r\n", 1)[0]) if marker >= 0 else 0
        if len(body) < length:
            return
        self._received = b""
        transport = self._transport
        assert transport is not None
        compact = body.replace(b" ", b"")
        if b'"stream":true' in compact:
            transport.write(HEAD)
            self._send(0)
        else:
            transport.write(WHOLE)

    def _send(self, index: int) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if index == TOKENS:
            transport.write(LAST)
            return
        transport.write(PIECES[index])
        asyncio.get_running_loop().call_later(PACE_SECONDS, self._send, index + 1)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(ModelServer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_serve(parser.parse_args().port))
