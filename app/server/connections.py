"""One client's connection to a worker: what it waits for, how it is parsed, its limits, and how it is refused."""

from __future__ import annotations

import enum
import errno
import json
import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn

from ..errors import AddressTooLong, BadRequest, HeaderTooLarge, Problem
from ..processes.memory import shared_words
from ..settings import Settings
from ..telemetry import logs
from ..web.headers import SECURITY_HEADERS
from ..web.uploads import FRAMING_BYTES
from .arrivals import Arrival, ClientSocket, Limits, Received

_FIELDS = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"} | SECURITY_HEADERS
_REQUEST_ID = re.compile(rb"\r\nx-request-id:([^\r\n]*)", re.IGNORECASE)
_ORIGIN = re.compile(rb"\r\norigin:([^\r\n]*)", re.IGNORECASE)
_METHOD = re.compile(rb"([A-Z]{1,20}) ")
# What is wrong with a request is told in its own words, but not all of them.
_LONGEST_REASON = 200


class Wait(enum.Enum):
    """What a connection waits for while no thread has it."""

    REQUEST = "request"
    HEAD = "head"
    BODY = "body"
    READER = "reader"
    CLOSE = "close"


def _has_no_place() -> None:
    """Free nothing."""


class _BodyReader:
    """gunicorn's reader of a body, which fails as a broken connection does where chunks are malformed.

    So the framework knows whose fault it is and answers 400.
    """

    def __init__(self, reader: Any, request: Request) -> None:
        self._reader = reader
        self._request = request

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; raises OSError for a body that is malformed or breaks off."""
        try:
            return bytes(self._reader.read(size))
        except ParseException as error:
            self._request.force_close()  # nobody knows where the next request would begin
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from error


class _Parser(RequestParser):  # type: ignore[misc]
    """gunicorn's parser, over what has arrived."""

    def __init__(self, cfg: Config, connection: ClientSocket, client: Any) -> None:
        super().__init__(cfg, connection, client)
        self.unreader = Received(connection)
        self.is_whole = True
        # Why the body was not taken in, and what frees the place that it has while its key is not known.
        self.refusal: Problem | None = None
        self.free_place: Callable[[], None] = _has_no_place

    def __next__(self) -> Request:
        request = super().__next__()
        request.body.reader = _BodyReader(request.body.reader, request)
        # The event loop has answered this already, or the body is not wanted.
        request._expected_100_continue = False
        # The rest of a request that is refused is read by the event loop, and no other follows it.
        request.body.is_left_to_server = not self.is_whole
        request.body.refusal, request.body.free_place = self.refusal, self.free_place
        if not self.is_whole:
            request.force_close()
        return request

    def forget(self) -> None:
        """Let go of the request, and of what was not read of it; no other follows."""
        self.mesg = None
        self.unreader.forget()


class Connection(TConn):  # type: ignore[misc]
    """A client's connection, and what it waits for."""

    def __init__(self, cfg: Config, connection: ClientSocket, client: Any, server: Any) -> None:
        super().__init__(cfg, connection, client, server)
        self.initialized = True
        self.parser = _Parser(cfg, connection, client)
        self.arrival: Arrival | None = None
        self.wait = Wait.REQUEST
        self.ready: Any = None
        self.deadline = 0.0
        self.since = 0.0
        self.moved_bytes = 0
        self.last_pace = 0.0
        self.held_bytes = 0
        self.keep = False
        self.rest = b""

    def begin_window(self, now: float, seconds: float) -> None:
        """Begin to measure how much moves within so many seconds."""
        self.last_pace = self.moved_bytes / (now - self.since + 1)
        self.since, self.deadline, self.moved_bytes = now, now + seconds, 0

    def pace(self, now: float) -> float:
        """Tell how many bytes a second move, in this window or the one before; who begins is given a second."""
        return max(self.last_pace, self.moved_bytes / (now - self.since + 1))


def problem_of(error: ParseException, limit_request_line: int) -> Problem:
    """Say in our words what gunicorn's parser does not take."""
    if isinstance(error, LimitRequestLine):
        return AddressTooLong(f"The first line of a request has at most {limit_request_line:,} bytes.")
    if isinstance(error, LimitRequestHeaders):
        return HeaderTooLarge("The header has more fields, or longer ones, than are read.")
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    return BadRequest(f"The request is not proper HTTP. {reason}".rstrip(" .") + ".")


def limits_of(cfg: Config, settings: Settings) -> Limits:
    """Take the limits of connections from gunicorn's configuration and ours."""
    largest = max(settings.max_batch_bytes, settings.max_upload_bytes * 4 // 3)  # base64 is a third longer
    return Limits(
        head_bytes=cfg.limit_request_line + cfg.limit_request_fields * 1024,
        body_bytes=largest + 2 * FRAMING_BYTES,
        all_bytes=settings.max_waiting_bytes + 2 * FRAMING_BYTES,
        stall_seconds=settings.stall_seconds,
        bytes_per_second=settings.min_bytes_per_second,
    )


class Shares:
    """How many connections each worker has, in memory that they share across the fork, so that the least busy accepts.

    Where several workers wait for connections the system wakes them all, and a busy one may be first. It pauses for
    as long as it has more than another: never where all have as many, so that a flood of connections stops nobody.
    """

    def __init__(self) -> None:
        # One more than a worker has; 0 is for no worker.
        self._counts = shared_words()

    def note(self, slot: int, connections: int) -> None:
        """Say how many connections the worker in a slot has."""
        self._counts[slot] = 1 + connections

    def forget(self, slot: int) -> None:
        """Take a worker that has left out of account."""
        self._counts[slot] = 0

    def pause_seconds(self, slot: int) -> float:
        """Return how long the worker in a slot leaves a new connection to those that have fewer."""
        least = min(filter(None, self._counts), default=0)
        return min(0.001 * max(0, self._counts[slot] - least), 0.01)


class CountsConnections:
    """What makes a worker tell the others how many connections it has, at every change of gunicorn's own count."""

    shares, slot = Shares(), 0  # where there are several workers, gunicorn.conf.py gives them others
    _connections = 0

    @property
    def nr_conns(self) -> int:
        """Return how many connections this worker has."""
        return self._connections

    @nr_conns.setter
    def nr_conns(self, connections: int) -> None:
        self._connections = connections
        self.shares.note(self.slot, connections)


def request_id_in(head: bytes) -> str:
    """Return the id that a head gives its request, or a new one."""
    found = _REQUEST_ID.search(head)
    return logs.choose_request_id(found[1].strip().decode("latin-1") if found else None)


def method_in(begin: bytes) -> str:
    """Return the method with which a request begins, "other" where it is none."""
    found = _METHOD.match(begin)
    return found[1].decode("ascii") if found else "other"


def origin_in(head: bytes) -> str | None:
    """Return the origin of the page that sends a request, None where none is named."""
    found = _ORIGIN.search(head)
    return found[1].strip().decode("latin-1") if found else None


def refusal(
    problem: Problem, request_id: str, *, keeps_connection: bool = False, more: Mapping[str, str] | None = None
) -> bytes:
    """Write a problem as a whole answer, with some header fields more."""
    body = json.dumps(problem.as_dict() | {"instance": logs.as_urn(request_id)}).encode()
    fields = _FIELDS | {
        "Connection": "keep-alive" if keeps_connection else "close",
        "Date": formatdate(usegmt=True),
        "X-Request-ID": request_id,
        "Content-Length": str(len(body)),
        **(more or {}),
    }
    if problem.retry_after_seconds:
        fields["Retry-After"] = str(problem.retry_after_seconds)
    lines = [f"HTTP/1.1 {problem.status} {problem.title}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
