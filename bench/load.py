"""A load generator over a raw protocol: CLIENTS connections, one turn after the other on each, for SECONDS seconds.

Prints one JSON line: turns, errors, seconds, and the latencies' median and 95th percentile in milliseconds.
"""

import argparse
import asyncio
import json
import statistics
import time

END = b"0\r\n\r\n"


class Client(asyncio.Protocol):
    """One connection that sends its request again as soon as the answer is whole."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent_at = 0.0
        self.latencies: list[float] = []
        self.errors = 0
        self._streaming = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        # Only the last piece of a stream can end it; the others are not looked through.
        if (self._streaming and not data.endswith(END)) or not self._whole():
            self._streaming = self._streaming or b"transfer-encoding: chunked" in data[:1024].lower()
            return
        if self._received.startswith(b"HTTP/1.1 200"):
            self.latencies.append(time.perf_counter() - self._sent_at)
        else:
            self.errors += 1
        self._received = b""
        if time.perf_counter() < self._until:
            self._send()
        else:
            assert self._transport is not None
            self._transport.close()

    def _whole(self) -> bool:
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return False
        lowered = head.lower()
        marker = lowered.find(b"content-length:")
        if marker >= 0:
            return len(body) >= int(lowered[marker + 15 :].split(b"\r\n", 1)[0])
        return body.endswith(END)

    def connection_lost(self, exc: Exception | None) -> None:
        self.errors += exc is not None
        if not self.done.done():
            self.done.set_result(None)


async def run(port: int, path: str, body: bytes, clients: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    request = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Client(request, began + seconds), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for _, client in made))
    took = time.perf_counter() - began
    latencies = sorted(latency for _, client in made for latency in client.latencies)
    return {
        "turns": len(latencies),
        "errors": sum(client.errors for _, client in made),
        "seconds": took,
        "per_second": len(latencies) / took,
        "p50_ms": statistics.median(latencies) * 1000 if latencies else 0.0,
        "p95_ms": latencies[int(len(latencies) * 0.95)] * 1000 if latencies else 0.0,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    figures = asyncio.run(run(chosen.port, chosen.path, chosen.body.encode(), chosen.clients, chosen.seconds))
    print(json.dumps(figures))
