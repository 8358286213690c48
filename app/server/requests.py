"""A request as it arrives, and its answer: waitress's parser and tasks, with limits, early rejection and problems."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from waitress import task
from waitress.parser import HTTPRequestParser, ParsingError

from ..errors import AddressTooLong, BadRequest, HeaderTooLarge, InternalError, Problem, TooLarge
from ..telemetry.logs import RateFilter
from ..web.gate import Head, Refusal
from ..web.problems import FAILED, TOO_LARGE
from ..web.uploads import REFUSAL, RELEASE

log = logging.getLogger(__name__)
log.addFilter(RateFilter(max_records=10, seconds=10))

MAX_SKIPPED_BYTES = 256 * 2**20  # of a body that is not taken: they are dropped, so that its sender reads the answer
_NO_HEAD = re.compile(rb"(?:\r\n)?[^\r!#$%&'*+\-.^_`|~0-9A-Za-z]")  # such as the first bytes of TLS
_LONE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_BLANK_LINES = re.compile(rb"\A(?:\r\n)+")
_LONG_GAP = re.compile(rb"[ \t]{200}")  # waitress's pattern of a field takes quadratic time for very many spaces
_CHUNKED_SLICE = 8192  # what waitress gets at a time: it copies all that follows a chunk, and chunks may be tiny
_FREE_FRAMING_BYTES = 32 * 1024  # beyond these, the lines with chunks' sizes may take an eighth of a body
_TOO_MANY_FIELDS = HeaderTooLarge("The header has more fields, or longer ones, than this server takes.")
_NO_HTTP = BadRequest("This is not proper HTTP: its lines end in CR LF, and the first one begins with a method.")
_BY_STATUS = {413: TooLarge(TOO_LARGE), 431: _TOO_MANY_FIELDS, 500: InternalError(FAILED)}


class Request(HTTPRequestParser):
    """waitress's parser, which asks the gate when the head has arrived."""

    body_rcv: Any = None
    error: Any = None
    version = "1.1"  # of the answer to what has no readable first line
    head: Head | None = None
    refusal: Refusal | None = None
    ends = False  # whether the connection ends with this request
    release: Callable[[], object] = bool

    def __init__(self, channel: Any, adj: Any) -> None:
        super().__init__(adj)
        self._channel = channel
        self._gate = channel.connections.gate

    def received(self, data: bytes) -> int:
        """Take bytes, leave those behind this request to the channel, and return how many were taken."""
        is_head = not self.headers_finished
        consumed = self._take_chunks(data) if self.chunked else int(super().received(data))
        if self.error is not None and self.refusal is None:
            self.reject(_problem_of(self.error))
        elif is_head and self.body_rcv is not None and self.head is not None:
            self.refusal = self._gate.refuse(self.head)
            if self.refusal is None:
                self.release = self._gate.take_place(self.head)
        elif not self.headers_finished and self._is_no_head(len(data)):
            self.reject(_NO_HTTP)
        if self.refusal is not None:
            consumed += self._skip(self.refusal, len(data) - consumed)
        if self.completed:
            self.expect_continue = False
            rest = data[consumed:]
            # waitress takes two blank lines for an empty request; many in a row would each take a round of the loop.
            self._channel.rest = _BLANK_LINES.sub(b"", rest, count=1) if self.empty else rest
            return len(data)
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head within our limits; raises ParsingError, with a problem or a text, for what is not taken."""
        cfg = self._channel.connections.cfg
        line, _, fields = header_plus.partition(b"\r\n")
        if len(line) > cfg.limit_request_line:
            raise ParsingError(AddressTooLong(f"A request's first line has at most {cfg.limit_request_line:,} bytes."))
        if fields.count(b"\r\n") > cfg.limit_request_fields + 1:
            raise ParsingError(_TOO_MANY_FIELDS)
        if _LONG_GAP.search(header_plus):
            raise ParsingError("There are very many spaces in a row")
        try:
            super().parse_header(header_plus)
        except ValueError:
            raise ParsingError("A number or the address is invalid") from None
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("The version of HTTP is not 1.0 or 1.1")
        # waitress takes this field out of the headers, and takes an empty one for none.
        lowered = header_plus.lower()
        if b"\r\ntransfer-encoding:" in lowered and (not self.chunked or "CONTENT_LENGTH" in self.headers):
            raise ParsingError("Transfer-Encoding is empty, or comes with Content-Length or HTTP/1.0")
        if lowered.count(b"\r\nhost:") not in ((1,) if self.version == "1.1" else (0, 1)):
            raise ParsingError("Host is missing or repeated")  # RFC 9112, section 3.2
        path, size = "/" + self.path.lstrip("/"), None if self.chunked else self.content_length
        self.head = Head(self.command, path, self.headers, size, self._channel.server.effective_port)

    def reject(self, problem: Problem) -> None:
        """Answer this request with a problem, although it may not have arrived whole, and end the connection."""
        if isinstance(problem, BadRequest):
            # The address is taken out of the log unless it is asked for (app/telemetry/logs.py).
            log.warning("Invalid request from ip=%s: %s", self._channel.addr[0], problem.detail)
        self.refusal = Refusal(problem, self._gate.answer(problem, self.head))
        self.error, self.ends, self.completed = problem, True, True

    def close(self) -> None:
        """Free what the request holds."""
        super().close()
        self.release()

    def _is_no_head(self, new_bytes: int) -> bool:
        """Return whether what has arrived cannot be the beginning of a head; only the new bytes are searched."""
        start = len(self.header_plus) - new_bytes
        return bool(_NO_HEAD.match(self.header_plus) or _LONE_LINE_FEED.search(self.header_plus, start))

    def _take_chunks(self, data: bytes) -> int:
        consumed = 0
        while consumed < len(data) and not (self.completed or self.refusal):
            consumed += super().received(data[consumed : consumed + _CHUNKED_SLICE])
            size = len(self.body_rcv)
            unfinished = len(self.body_rcv.control_line) + len(self.body_rcv.trailer)
            if self.body_bytes_received - size > _FREE_FRAMING_BYTES + size // 8 or unfinished > _FREE_FRAMING_BYTES:
                self.reject(BadRequest("The body's chunks are malformed, or very many and tiny."))
            elif self.head is not None:
                self.refusal = self._gate.refuse_size(replace(self.head, body_bytes=size))
        return consumed

    def _skip(self, refusal: Refusal, received: int) -> int:
        """Take no more of the body; return how many of the bytes that were received belong to it.

        Many clients send all of it before they read the answer. The connection goes on after it unless its end is far
        away or not known, or the client waits for `100 Continue`.
        """
        self.ends |= self.chunked or self.expect_continue or self.content_length > MAX_SKIPPED_BYTES
        rest = MAX_SKIPPED_BYTES if self.ends else self.content_length
        skipped = min(received, rest)
        self._channel.skips = rest - skipped
        self.body_rcv, self.completed = None, True
        self.error = refusal.problem if refusal.answer else None
        return skipped


class _Answer(task.Task):
    """Common base of both kinds of tasks: it counts the answer, and ends the connection as our channel does."""

    close_on_finish = False

    def service(self) -> None:
        """Write the answer."""
        super().service()
        self.channel.connections.answered += 1
        if self.close_on_finish:
            self.close_on_finish = False
            self.channel.end()

    def build_response_header(self) -> bytes:
        """Write the head; it announces the end of a connection that ends."""
        if self.request.ends or self.channel.connections.is_stopping:
            self.request.headers["CONNECTION"] = "close"
        return bytes(super().build_response_header())


class Task(_Answer, task.WSGITask):
    """Flask's answer."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment, with what the gate has decided."""
        environ: dict[str, Any] = super().get_environment()
        environ[RELEASE] = self.request.release
        if self.request.refusal is not None:
            environ[REFUSAL] = self.request.refusal.problem
        return environ


class Rejection(_Answer, task.ErrorTask):
    """The answer to a request that Flask does not get."""

    def execute(self) -> None:
        """Write a problem: that of the refusal or, if Flask has raised an exception, that of waitress's error."""
        gate, request = self.channel.connections.gate, self.request
        answer = request.refusal.answer if request.refusal else gate.answer(_problem_of(request.error), None)
        self.status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        self.response_headers.extend(answer.headers.items())
        self.content_length = len(answer.body)
        self.write(answer.body)


def _problem_of(error: Any) -> Problem:
    """Return the problem for one of waitress's errors."""
    if isinstance(error.body, Problem):
        return error.body
    reason = error.body.partition(' "')[0].rstrip(".")  # what waitress quotes of the request may be a secret
    return _BY_STATUS.get(error.code) or BadRequest(f"The request is not proper HTTP. {reason}.")
