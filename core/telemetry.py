"""Logging for both processes: one JSON line per record on stderr, with the fields given as `extra`.

No content of messages may get into a line. So an exception is told by its classes and the lines of code that it
passed, without its own text: a database's error text can quote a row.
"""

import logging
import sys
import threading
import traceback
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import orjson

from core import tracing

log = logging.getLogger(__name__)

OURS = ("api", "core", "worker")
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
            "message": _message(record),
        }
        whence = (("request_id", REQUEST_ID.get()), ("trace_id", tracing.trace_id()))
        line.update((name, value) for name, value in whence if value)
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1]:
            line["exception"] = _exception(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def _message(record: logging.LogRecord) -> str:
    told = record.getMessage()
    # Behind its first line asyncio shows the task, and with it the exception's text.
    return told.partition("\n")[0] if record.name == "asyncio" else told


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
    """Send every logger's records to stderr as JSON lines; call it once, before anything logs.

    What libraries say below INFO is never shown: that of WebSockets is each frame and each header, keys among them.
    """
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level if level != "DEBUG" else "INFO")
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    _catch_the_rest()


def _catch_the_rest() -> None:
    """What Python itself would print, with an exception's text and a warning's, which may quote anything."""

    def at_the_top(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("the process ends by an error", exc_info=(kind, error, trace))

    def in_a_thread(thrown: threading.ExceptHookArgs) -> None:
        log.error("a thread ends by an error", exc_info=thrown.exc_value)

    def uncaught(thrown: "sys.UnraisableHookArgs") -> None:
        log.error("an error that nobody can catch", exc_info=thrown.exc_value)

    def warn(
        message: Warning | str,  # noqa: ARG001 - its text is what must not be told
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        log.warning("a library warns", extra={"category": category.__name__, "at": f"{filename}:{lineno}"})

    sys.excepthook, threading.excepthook, sys.unraisablehook = at_the_top, in_a_thread, uncaught
    warnings.showwarning = warn
