"""A request as it arrives, and its answer: waitress's parser and tasks with our limits, early rejection and problems."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, WSGITask

from ..errors import AddressTooLong, BadRequest, HeaderTooLarge, InternalError, Overloaded, Problem
from ..web.gate import Head, Refusal
from ..web.uploads import REFUSAL, RELEASE
from .connections import MAX_SKIPPED_BYTES

if TYPE_CHECKING:
    from .channel import Channel

_BEGINNING = re.compile(rb"(?:\r?\n?[!#$%&'*+\-.^_`|~0-9A-Za-z]|\r?\n?\Z)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
# waitress's pattern of a field takes quadratic time for very many spaces.
_LONG_GAP = re.compile(rb"[ \t]{200}")
# waitress copies what follows a chunk once for each chunk; so that tiny chunks cost little, it gets few at a time, and
# size lines may take an eighth of a body beyond what is free.
_CHUNKED_SLICE = 8192
_FREE_FRAMING_BYTES = 32 * 1024


class Request(HTTPRequestParser):  # type: ignore[misc]
    """waitress's parser, which asks the gate when the head has ended."""

    version = "1.1"  # of the answer to what has no readable first line
    head: Head | None = None
    refusal: Refusal | None = None
    ends = False  # whether the connection ends with this request
    release: Callable[[], object] = bool

    def __init__(self, channel: Channel, adj: Any) -> None:
        super().__init__(adj)
        self._channel = channel

    @property
    def held_bytes(self) -> int:
        """Return how many bytes of the request are in memory."""
        return 0 if self.refusal else int(self.header_bytes_received + self.body_bytes_received)

    def received(self, data: bytes) -> int:
        """Take bytes, and return how many of them belong to this request, whether they are kept or not."""
        is_head = not self.headers_finished
        consumed = self._take_chunks(data) if self.chunked else int(super().received(data))
        if is_head and not self.completed and not self.headers_finished:
            self._check_beginning()
        if self.error is not None and self.refusal is None:
            self.reject(problem_of(self.error))
        elif is_head and self.headers_finished and self.body_rcv is not None:
            self._ask_gate()
        if self.refusal is not None:
            consumed += self._skip(len(data) - consumed)
        if self.completed:
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head within our limits; raises ParsingError, with a problem or a text, for what is not taken."""
        limits = self._channel.connections.limits
        line, _, fields = header_plus.partition(b"\r\n")
        if len(line) > limits.line_bytes:
            raise ParsingError(AddressTooLong(f"The first line of a request has at most {limits.line_bytes:,} bytes."))
        if fields.count(b"\r\n") > limits.header_fields + 1:
            raise ParsingError(HeaderTooLarge("The header has more fields, or longer ones, than are read."))
        if _LONG_GAP.search(header_plus):
            raise ParsingError("There are very many spaces in a row")
        try:
            super().parse_header(header_plus)
        except ValueError:
            raise ParsingError("A number or the address is invalid") from None
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("The version is not HTTP/1.0 or HTTP/1.1")
        if "TRANSFER_ENCODING" in self.headers or (self.chunked and "CONTENT_LENGTH" in self.headers):
            raise ParsingError("Content-Length or HTTP/1.0 does not go with Transfer-Encoding")
        path = "/" + self.path.lstrip("/")
        self.head = Head(self.command, path, self.headers, None if self.chunked else self.content_length)

    def reject(self, problem: Problem) -> None:
        """Have a problem answer this request, whatever has arrived of it, and end the connection."""
        if isinstance(problem, BadRequest):
            self._channel.connections.warn_of(problem, self._channel.addr[0])
        answer = self._channel.connections.gate.answer(problem, self.head)
        self.refusal, self.error, self.ends, self.completed = Refusal(problem, answer), problem, True, True

    def close(self) -> None:
        """Free what the request holds."""
        super().close()
        self.release()

    def _take_chunks(self, data: bytes) -> int:
        consumed = 0
        while consumed < len(data) and not self.completed:
            consumed += super().received(data[consumed : consumed + _CHUNKED_SLICE])
            size = len(self.body_rcv)
            if self.body_bytes_received - size > _FREE_FRAMING_BYTES + size // 8:
                self.reject(BadRequest("The body's chunks are malformed, or very many and tiny."))
            elif self.head and (refusal := self._channel.connections.gate.refuse_size(replace(self.head, body_bytes=size))):
                self.refusal = refusal
        return consumed

    def _check_beginning(self) -> None:
        """Refuse at once what can become no head: another protocol's first bytes, or lines that end in LF alone."""
        if not _BEGINNING.match(self.header_plus) or _BARE_LF.search(self.header_plus):
            self.reject(BadRequest("The request is not proper HTTP. Lines end in CR LF, and the first begins with a method."))

    def _ask_gate(self) -> None:
        assert self.head is not None
        gate = self._channel.connections.gate
        self.refusal = gate.refuse(self.head)
        if self.refusal is None:
            try:
                self.release = gate.take_place(self.head)
            except Overloaded as problem:
                self.refusal = Refusal(problem, None)

    def _skip(self, received: int) -> int:
        """Take no more of the body; return how many of the bytes that were received belong to it.

        Its sender may go on sending before it reads, so that the rest is read and dropped, as the body of a request
        that is answered already. Only if its end is far or not known the connection ends as well.
        """
        known = not (self.chunked or self.expect_continue or self.ends) and self.content_length <= MAX_SKIPPED_BYTES
        rest = self.content_length if known else MAX_SKIPPED_BYTES
        skipped = min(received, rest)
        self._channel.skips = rest - skipped
        self.ends = self.ends or not known
        assert self.refusal is not None
        self.body_rcv, self.completed = None, True
        self.error = self.refusal.problem if self.refusal.answer else None
        return skipped


class _Answer:
    """What both kinds of waitress's tasks do here: count the answer, and end the connection as a channel of ours does."""

    channel: Any
    request: Any
    close_on_finish: bool

    def service(self) -> None:
        """Write the answer."""
        super().service()  # type: ignore[misc]
        self.channel.connections.answered += 1
        if self.close_on_finish:
            self.close_on_finish = False
            self.channel.end()

    def build_response_header(self) -> bytes:
        """Write the head; it announces the end of a connection that ends."""
        if self.request.ends or self.channel.connections.is_stopping:
            self.request.headers["CONNECTION"] = "close"
        return bytes(super().build_response_header())  # type: ignore[misc]


class Task(_Answer, WSGITask):  # type: ignore[misc]
    """Flask's answer."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment, with what the gate has decided."""
        environ: dict[str, Any] = super().get_environment()
        environ[RELEASE] = self.request.release
        if self.request.refusal is not None:
            environ[REFUSAL] = self.request.refusal.problem
        return environ


class Rejection(_Answer, ErrorTask):  # type: ignore[misc]
    """The answer to a request that Flask does not get."""

    def execute(self) -> None:
        """Write a problem."""
        refusal: Refusal | None = self.request.refusal
        answer = refusal.answer if refusal else None
        if answer is None:
            answer = self.channel.connections.gate.answer(problem_of(self.request.error), None)
        self.status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        self.response_headers.extend(answer.headers.items())
        self.content_length = len(answer.body)
        self.write(answer.body)


def problem_of(error: Any) -> Problem:
    """Say in our words what waitress does not take."""
    if isinstance(error.body, Problem):
        return error.body
    if error.code == 431:
        return HeaderTooLarge("The header has more fields, or longer ones, than are read.")
    if error.code == 500:
        return InternalError("Something failed here. It is in the server's log; the same request may work again.")
    # What waitress quotes of the request may be a secret.
    reason = error.body.partition(' "')[0].rstrip(".")
    return BadRequest(f"The request is not proper HTTP. {reason}.")
