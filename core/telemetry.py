"""Logging for both processes: one JSON line per record on stderr, with the fields given as `extra`.

No content of messages may get into a line. So an exception is told by its classes and the lines of code that it
passed, without its own text: a database's error text can quote a row.
"""

import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime

import orjson

from core import tracing

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is served, or was when a task began that goes on without it."""

# What every record has; anything else came as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        whence = (("request_id", REQUEST_ID.get()), ("trace_id", tracing.trace_id()))
        line.update((name, value) for name, value in whence if value)
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1]:
            line["exception"] = _exception(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def _exception(error: BaseException) -> list[str]:
    """The class and the frames of an exception, and of what it was raised from, innermost cause last."""
    told: list[str] = []
    link: BaseException | None = error
    while link is not None:
        frames = traceback.extract_tb(link.__traceback__)
        told.append(type(link).__qualname__)
        told.extend(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        if isinstance(link, BaseExceptionGroup):
            for member in link.exceptions:
                told.extend(_exception(member))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return told


def configure_logging(level: str) -> None:
    """Send every logger's records to stderr as JSON lines; call it once, before anything logs."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level)
