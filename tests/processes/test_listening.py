"""Which of several workers takes a connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from waiting import wait_until

from app.processes.listening import REST_SECONDS, Listener
from app.processes.readiness import Readiness


class Accepting:
    """What a listener stands before: it accepts a connection."""

    def __init__(self, listening: socket.socket) -> None:
        self.socket = listening
        self.count = 0

    def handle_read_event(self) -> None:
        """Accept a connection."""
        self.socket.accept()[0].close()
        self.count += 1

    def handle_error(self) -> None:
        """Fail the test."""
        raise AssertionError


@pytest.fixture
def accepting() -> Iterator[Accepting]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Accepting(listening)


def connect(accepting: Accepting) -> None:
    socket.create_connection(accepting.socket.getsockname()).close()


def test_a_worker_without_more_than_others_takes_all(accepting: Accepting) -> None:
    listener = Listener(accepting, lambda: False)
    for count in (1, 2, 3):
        connect(accepting)
        listener.handle_read_event()
        assert (accepting.count, listener.readable()) == (count, True)


def test_a_worker_with_more_takes_what_is_left_to_it(accepting: Accepting) -> None:
    listener = Listener(accepting, lambda: True)
    for count in (1, 2):
        connect(accepting)
        listener.handle_read_event()
        assert (accepting.count, listener.readable()) == (count - 1, False)
        wait_until(listener.readable)
        listener.handle_read_event()
        assert accepting.count == count
        # Until now a connection would count as one that others have left.
        end = time.monotonic() + 2 * REST_SECONDS
        wait_until(lambda end=end: time.monotonic() > end)


def test_only_workers_that_are_warm_are_left_connections() -> None:
    readiness = Readiness(planned=3)
    readiness.slot = 1
    readiness.hold(1)
    assert not readiness.holds_more()
    readiness.mark(2, True)
    assert readiness.holds_more()
    readiness.hold(0)
    assert not readiness.holds_more()


def test_a_slot_that_is_forgotten_holds_nothing() -> None:
    readiness = Readiness(planned=2)
    readiness.hold(3)
    readiness.mark(1, True)
    assert readiness.holds_more()
    readiness.forget(0)
    assert not readiness.holds_more()
