"""Which of several workers takes a connection."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

import pytest
from waiting import wait_until

from app.processes import listening
from app.processes.listening import Listener
from app.processes.readiness import Readiness


class Accepting:
    """What a listener stands before: it accepts a connection."""

    def __init__(self, listening_socket: socket.socket) -> None:
        self.socket = listening_socket
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
    with socket.create_server(("127.0.0.1", 0)) as listening_socket:
        yield Accepting(listening_socket)


def connect(accepting: Accepting) -> None:
    socket.create_connection(accepting.socket.getsockname()).close()


def test_a_worker_without_more_than_others_takes_all(accepting: Accepting) -> None:
    listener = Listener(accepting, lambda: False, deque())
    for count in (1, 2, 3):
        connect(accepting)
        listener.handle_read_event()
        assert (accepting.count, listener.readable()) == (count, True)


def test_a_worker_with_more_takes_what_others_leave(accepting: Accepting) -> None:
    changed = deque[int]()
    listener = Listener(accepting, lambda: True, changed)
    for count in (1, 2):
        connect(accepting)
        listener.handle_read_event()
        assert (accepting.count, listener.readable()) == (count - 1, False)
        wait_until(lambda: listener.look() or listener.readable())
        assert changed.pop() == listener.file
        listener.handle_read_event()
        assert accepting.count == count
        listener.look()


def test_a_connection_that_others_took_counts_no_more(accepting: Accepting) -> None:
    listener = Listener(accepting, lambda: True, deque())
    listener.handle_read_event()
    wait_until(lambda: listener.look() or listener.readable())
    listener.look()  # after a round in which there was none
    connect(accepting)
    listener.handle_read_event()
    assert (accepting.count, listener.rests) == (0, True)


def test_a_worker_that_has_no_more_rests_no_longer(accepting: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "REST_SECONDS", 600.0)
    counts, changed = [1], deque[int]()
    listener = Listener(accepting, lambda: counts[0] > 0, changed)
    connect(accepting)
    listener.handle_read_event()
    listener.look()
    assert not listener.readable()
    counts[0] = 0
    listener.look()
    assert (listener.readable(), changed.pop()) == (True, listener.file)
    listener.handle_read_event()
    assert accepting.count == 1


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
