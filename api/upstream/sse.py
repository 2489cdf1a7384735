"""Server-sent events out of a byte stream, however the network cut it."""


class Decoder:
    """Feed it what the network brings, get the `data` of each event that is whole.

    Bytes, not text: a UTF-8 character that a read cut in two is whole again before anybody decodes it.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._rest:
            chunk = self._rest + chunk
        if b"\r" in chunk:
            # A CR at the very end may be the first half of a CRLF: without its LF it must not end a line yet.
            end = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + end
        events = chunk.split(b"\n\n")
        self._rest = events.pop()
        found = []
        for event in events:
            if event.startswith(b"data:") and b"\n" not in event:
                found.append(event[5:])
            elif data := _data(event):
                found.append(data)
        return found

    def end(self) -> bytes:
        """The last event of a server that closes without the empty line after it; may be cut or empty."""
        return _data(self._rest.rstrip(b"\r"))


def _data(event: bytes) -> bytes:
    """The slow way: comments, other fields, data in several lines."""
    return b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
