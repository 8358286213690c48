"""Requests that are still arriving: when one is whole, and what waits of an answer until its client reads.

Nothing here blocks. A worker's event loop feeds the bytes that have come into an `Arrival`, which tells when the
request can be given to a thread; the thread then reads from memory, through `Received`. What a client does not
take of its answer at once stays in its `ClientSocket`, for the event loop to send.
"""

from __future__ import annotations

import enum
import errno
import re
import socket
from dataclasses import dataclass
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.unreader import SocketUnreader

Bytes = bytes | bytearray | memoryview

# Spaces are taken off afterwards: a pattern that matched them too would take quadratic time for very many of them.
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect):([^\r\n]*)(?=\r\n)", re.IGNORECASE)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\Z")
_HEAD_END = b"\r\n\r\n"
# As long as gunicorn lets a chunk's size line and a body's trailers be.
_LONGEST_LINE = 8190
# Each chunk costs the event loop about a microsecond, however small it is; clients send some kilobytes in each.
_FREE_CHUNKS = 4096
_LEAST_CHUNK_BYTES = 64


class State(enum.Enum):
    """How far a request has come."""

    HEAD = "head"
    BODY = "body"
    WHOLE = "whole"
    # Too large, or not framed in the plain way: a thread refuses it and reads no more of it.
    REFUSED = "refused"


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a connection: sizes in bytes, a pace in bytes a second over so many seconds."""

    head_bytes: int
    body_bytes: int
    all_bytes: int
    stall_seconds: float
    bytes_per_second: int


class Arrival:
    """One request on its way in: its bytes so far, and where it ends as soon as that is known."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most_bytes = limits.body_bytes
        self._end: int | None = None
        self._chunk = 0  # where the next chunk's size line begins, in a chunked body
        self._chunks = 0
        self.data = bytearray()
        self.head_bytes = 0
        self.state = State.HEAD
        self.awaits_continue = False

    @property
    def head(self) -> bytes:
        """Return the head, with the empty line that ends it, once it is there."""
        return bytes(self.data[: self.head_bytes])

    @property
    def declared_bytes(self) -> int | None:
        """Return how many bytes the body is said to have; None where that is not known before it ends."""
        return None if self._end is None else self._end - self.head_bytes

    @property
    def is_alone(self) -> bool:
        """Tell whether the body's length is known and nothing has come of a next request."""
        return self._end is not None and len(self.data) <= self._end

    def feed(self, received: Bytes) -> State:
        """Take bytes that have come, and tell how far the request is."""
        searched = max(0, len(self.data) - len(_HEAD_END) + 1)
        self.data += received
        if self.state is State.HEAD:
            self._look_for_head(searched)
        if self.state is State.BODY:
            if self._end is None:
                self._walk_chunks()
            if self._end is not None and len(self.data) >= self._end:
                self.state = State.WHOLE
            elif len(self.data) > self.head_bytes + self._most_bytes:
                self.state = State.REFUSED
        self.awaits_continue &= self.state is State.BODY and len(self.data) == self.head_bytes
        return self.state

    def _look_for_head(self, searched: int) -> None:
        # An empty line before the request line is allowed (RFC 9112, section 2.2).
        found = self.data.find(_HEAD_END, max(searched, 1 if self.data[:2] != b"\r\n" else 2))
        if (len(self.data) if found < 0 else found + len(_HEAD_END)) > self._limits.head_bytes:
            self.state = State.REFUSED
            return
        if found < 0:
            return
        self.head_bytes = found + len(_HEAD_END)
        self.state = self._read_framing(bytes(self.data[: self.head_bytes - 2]))

    def _read_framing(self, head: bytes) -> State:
        """Find the body's end; gunicorn's own parser judges what is malformed, from the bytes that are there."""
        fields = [(name.lower(), value.strip(b" \t").lower()) for name, value in _FRAMING.findall(head)]
        values = dict(fields)
        length, coding = values.get(b"content-length"), values.get(b"transfer-encoding")
        if len(values) < len(fields) or (length is not None and coding is not None):
            return State.REFUSED
        self.awaits_continue = values.get(b"expect") == b"100-continue" and b" HTTP/1.1\r\n" in head
        if coding is not None:
            self._chunk = self.head_bytes
            self._most_bytes += self._limits.body_bytes // 8  # size lines are not the body's; more is too tiny chunks
            return State.BODY if coding == b"chunked" else State.REFUSED
        if length is not None and not (length.isdigit() and len(length) < 16):
            return State.REFUSED
        size = int(length or 0)
        self._end = self.head_bytes + size
        return State.BODY if size <= self._limits.body_bytes else State.REFUSED

    def _walk_chunks(self) -> None:
        """Go from one chunk's size line to the next (RFC 9112, section 7.1), as far as the bytes reach."""
        while self._chunk <= len(self.data):
            line_end = self.data.find(b"\r\n", self._chunk, self._chunk + _LONGEST_LINE)
            if line_end < 0:
                if len(self.data) - self._chunk > _LONGEST_LINE:
                    self.state = State.REFUSED
                return
            line = _CHUNK_LINE.match(self.data[self._chunk : line_end])
            self._chunks += 1
            if line is None or self._chunks > _FREE_CHUNKS + self._chunk // _LEAST_CHUNK_BYTES:
                self.state = State.REFUSED
                return
            size = int(line[1], 16)
            if size == 0:
                self._look_for_trailers_end(line_end)
                return
            self._chunk = line_end + 2 + size + 2

    def _look_for_trailers_end(self, line_end: int) -> None:
        found = self.data.find(_HEAD_END, line_end)
        if found >= 0:
            self._end = found + len(_HEAD_END)
        elif len(self.data) - line_end > self._limits.head_bytes:
            self.state = State.REFUSED


class Received(SocketUnreader):  # type: ignore[misc]
    """What gunicorn's parser reads a request from: memory alone, its head apart from its body.

    Where the parser wants more than has arrived, the request was refused, or its client has closed its side. Reading
    the socket instead would hold a thread for whoever sends a head that is too long, or a body in an unusual framing.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._data = bytearray()
        self._at = 0
        self._head_bytes = 0
        self._is_refused = False

    def fill(self, arrival: Arrival) -> None:
        """Take over what has arrived of the next request."""
        self._data, self._at, self._head_bytes = arrival.data, 0, arrival.head_bytes
        self._is_refused = arrival.state is State.REFUSED

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes, none where its client sends no more; raises where head or framing was refused."""
        if self._at < len(self._data):
            end = self._head_bytes if self._at < self._head_bytes else self._at + max(size_hint or 0, self.mxchunk)
            end = min(end, len(self._data), self._at + self.max_body_chunk)
            piece = bytes(memoryview(self._data)[self._at : end])
            self._at = end
            if end == len(self._data):
                self._data, self._at = bytearray(), 0
            return piece
        if not self._is_refused:
            return b""
        if self._head_bytes:
            raise ConnectionResetError(errno.ECONNRESET, "The body's framing was refused")
        raise LimitRequestHeaders("The head is too long")

    def take_rest(self) -> bytes:
        """Hand back what lies beyond the request that was read: the beginning of the next."""
        rest = bytes(self.take_buffered()) + bytes(memoryview(self._data)[self._at :])
        self.forget()
        return rest

    def forget(self) -> None:
        """Let go of what was not read."""
        self._data, self._at = bytearray(), 0


class ClientSocket(socket.socket):
    """A client's connection on which sending never waits: what does not go out at once is kept in `unsent`."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.unsent = bytearray()

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send what the client takes now and keep the rest, in order, for `flush`."""
        if self.unsent:
            self.unsent += data
            self.flush()
            return
        view = memoryview(data).cast("B")
        self.unsent += view[self._send_now(view) :]

    def flush(self) -> int:
        """Send more of what was kept, as much as the client takes now, and return how many bytes that was."""
        with memoryview(self.unsent) as view:
            sent = self._send_now(view)
        del self.unsent[:sent]
        return sent

    def _send_now(self, view: Any) -> int:
        sent = 0
        try:
            while sent < len(view):
                sent += self.send(view[sent:], socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        return sent
