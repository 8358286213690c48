"""The log: one line per message, as JSON or text, with the id of the request that it belongs to."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import threading
from collections import deque
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from ..settings import Settings

# The ids of the request that this thread works on and of its trace; empty if there is none.
request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")

REQUESTS_LOGGER = "app.requests"
# The logger of `logging.captureWarnings`.
WARNINGS_LOGGER = "py.warnings"
ID_HEADER = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The server logs the address of a client whose request it cannot parse.
_ADDRESS = re.compile(r"\bip=\S+?(?=:?(\s|$))")


def choose_request_id(asked: str | None) -> str:
    """Return the id that a client or proxy gave its request if it is short and harmless, else a random one."""
    return asked if asked and _SANE_ID.fullmatch(asked) else secrets.token_hex(16)


def as_urn(request: str) -> str:
    """Write a request's id as a URI, the `instance` of a problem (RFC 9457, section 3.1.5)."""
    return f"urn:topthree:request:{request}"


class RequestFilter(logging.Filter):
    """Add the request's id to each record, and remove addresses of clients unless `addresses` is true."""

    def __init__(self, *, addresses: bool) -> None:
        super().__init__()
        self._addresses = addresses

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record, and return True for each."""
        if request_id.get() and not hasattr(record, "request_id"):
            record.request_id = request_id.get()
        if trace_id.get():
            record.trace_id = trace_id.get()
        if record.name == WARNINGS_LOGGER:
            record.msg, record.args = record.getMessage().strip(), None
        if not self._addresses and record.name.startswith(("gunicorn", "app.server")):
            record.msg, record.args = _ADDRESS.sub("ip=-", record.getMessage()), None
        return True


class RateFilter(logging.Filter):
    """Pass a limited number of records in some seconds, for messages that any client can cause at will."""

    def __init__(self, *, max_records: int, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._passed: deque[float] = deque(maxlen=max_records)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is one of the first."""
        is_free = len(self._passed) < (self._passed.maxlen or 0) or record.created - self._passed[0] > self._seconds
        if is_free:
            self._passed.append(record.created)
        return is_free


class TextFormatter(logging.Formatter):
    """Write one line per message, with control characters escaped, so that no client can forge a line."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S %z")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Write the line of a record, with the request's id at the end."""
        request = getattr(record, "request_id", "")
        return _escaped(super().formatMessage(record) + (f" [{request}]" if request else ""))

    def formatException(self, ei: Any) -> str:
        """Write a traceback indented, so that no line of it looks like a message."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """Write the stack of a message, indented in the same way."""
        return _indented(super().formatStack(stack_info))


def json_formatter() -> logging.Formatter:
    """Return the formatter of JSON lines: time (UTC, ISO 8601), level, logger, message, and extra fields."""
    return JsonFormatter(
        ["levelname", "name", "message", "process"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        timestamp="time",
    )


def capture_stray_messages() -> None:
    """Log what Python would otherwise write to standard error in a form of its own.

    These are warnings, exceptions that end a thread, and exceptions while an object is destroyed.
    """
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    if end.exc_type is SystemExit or end.exc_value is None:
        return
    name = end.thread.name if end.thread else "unknown"
    error = (end.exc_type, end.exc_value, end.exc_traceback)
    logging.getLogger(__name__).error("The thread '%s' ended with an exception.", name, exc_info=error)


def _log_unraisable(failure: sys.UnraisableHookArgs) -> None:
    error = failure.exc_value
    text = failure.err_msg or "Exception ignored in"
    logging.getLogger(__name__).error("%s: %r", text, failure.object, exc_info=error)


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _indented(text: str) -> str:
    """Indent each line by four spaces, with control characters escaped; only a line feed ends a line."""
    return "\n".join(f"    {_escaped(line)}" for line in text.split("\n"))


def configuration(settings: Settings) -> dict[str, Any]:
    """Build the argument of `logging.config.dictConfig`: all messages to standard error, in one format."""
    level = settings.log_level.upper()
    ours = {"handlers": ["stderr"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": RequestFilter, "addresses": settings.log_addresses == "on"}},
        "formatters": {"line": {"()": json_formatter if settings.log_format == "json" else TextFormatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": ["request"],
            }
        },
        "loggers": {
            "gunicorn.error": ours,
            "app": ours,
            REQUESTS_LOGGER: {"level": level if settings.access_log == "on" else "ERROR"},
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }
