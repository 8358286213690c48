"""Requests that arrive in pieces: whole at the right byte, refused early; answers that leave without waiting."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator

import pytest
from gunicorn.http.errors import LimitRequestHeaders

from app.server.arrivals import Arrival, ClientSocket, Limits, Received, State

LIMITS = Limits(head_bytes=500, body_bytes=1000, all_bytes=5000, stall_seconds=10, bytes_per_second=100)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    "no body": GET,
    "an empty line first": b"\r\n" + GET,
    "an empty body": POST % 0,
    "a length": POST % 5 + b"photo",
    "chunks": CHUNKED + b"5\r\nphoto\r\n1;name=value\r\n!\r\n0\r\n\r\n",
    "chunks that look like an end": CHUNKED + b"7\r\n0\r\n\r\n!!\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"5\r\nphoto\r\n0\r\nDigest: x\r\n\r\n",
}


@pytest.mark.parametrize("sent", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_is_whole_at_its_last_byte_and_not_before(sent: bytes, size: int) -> None:
    arrival = Arrival(LIMITS)
    states = [arrival.feed(sent[start : start + size]) for start in range(0, len(sent), size)]
    assert states[-1] is State.WHOLE
    assert set(states[:-1]) <= {State.HEAD, State.BODY}


@pytest.mark.parametrize(
    "sent",
    [
        POST % 1001,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 500,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 500 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"1" * 9000,
        CHUNKED + b"500\r\n" + bytes(1200),
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 100,
    ],
)
def test_what_cannot_be_taken_in_is_refused_at_once(sent: bytes) -> None:
    assert Arrival(LIMITS).feed(sent) is State.REFUSED


@pytest.mark.parametrize(
    ("head", "awaits"),
    [
        (POST.replace(b"Host", b"Expect: 100-Continue\r\nHost") % 5, True),
        (POST.replace(b"Host", b"Expect: 100-continue\r\nHost") % 5 + b"ph", False),
        (POST.replace(b"Host", b"Expect: 100-continue\r\nHost") % 5000, False),
        (POST.replace(b"Host", b"Expect: 100-continue\r\nHost").replace(b"1.1", b"1.0") % 5, False),
        (POST % 5, False),
    ],
)
def test_a_client_that_asks_first_is_told_to_go_on(head: bytes, awaits: bool) -> None:
    arrival = Arrival(LIMITS)
    arrival.feed(head)
    assert arrival.awaits_continue is awaits


def test_very_many_spaces_in_a_head_are_read_in_no_time() -> None:
    head = POST.replace(b"Host", b"Expect:" + b" " * 30_000 + b"x" + b" " * 30_000 + b"y\r\nHost") % 5
    started = time.thread_time()
    assert Arrival(dataclasses.replace(LIMITS, head_bytes=70_000)).feed(head) is State.BODY
    assert time.thread_time() - started < 0.5  # in quadratic time it takes ten times as long


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    """Both ends of a connection: the server's, and the client's."""
    ours, theirs = socket.socketpair()
    with ClientSocket(ours.detach()) as server, theirs as client:
        yield server, client


def test_parser_reads_memory_head_first_and_the_next_request_is_kept(
    pair: tuple[ClientSocket, socket.socket],
) -> None:
    arrival = Arrival(LIMITS)
    arrival.feed(POST % 5 + b"photo" + GET)
    received = Received(pair[0])
    received.fill(arrival)
    assert received.read() == POST % 5
    assert received.read(5, read_ahead=5) == b"photo"
    assert received.take_rest() == GET
    assert received.take_rest() == b""


@pytest.mark.parametrize(
    ("sent", "error"),
    [(POST % 9999 + b"photo", ConnectionResetError), (b"GET / HTTP/1.1\r\nX: " + b"x" * 500, LimitRequestHeaders)],
)
def test_parser_never_waits_for_more_of_what_was_refused(
    pair: tuple[ClientSocket, socket.socket], sent: bytes, error: type[Exception]
) -> None:
    arrival = Arrival(LIMITS)
    assert arrival.feed(sent) is State.REFUSED
    received = Received(pair[0])
    received.fill(arrival)
    read = bytearray()
    while len(read) < len(sent):
        read += received.read()
    assert read == sent
    with pytest.raises(error):
        received.read()


def test_sending_never_waits_and_keeps_what_is_not_taken_in_order(pair: tuple[ClientSocket, socket.socket]) -> None:
    server, client = pair
    sent = bytes(range(256)) * 20_000
    server.sendall(sent[:3_000_000])
    server.sendall(sent[3_000_000:])
    assert server.unsent
    taken = bytearray()
    while len(taken) < len(sent):
        taken += client.recv(1 << 20)
        server.flush()
    assert taken == sent
    assert not server.unsent
