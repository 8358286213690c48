"""Connections are shared out: who has more lets others go first, and nobody pauses where all have as many."""

from __future__ import annotations

import socket

from gunicorn.config import Config

from app.server.arrivals import ClientSocket
from app.server.connections import Connection, CountsConnections, Shares


def shares(*counts: int) -> Shares:
    """Note how many connections each worker has."""
    found = Shares()
    for slot, count in enumerate(counts):
        found.note(slot, count)
    return found


def test_who_has_fewest_accepts_at_once() -> None:
    assert shares(5, 2, 9).pause_seconds(1) == 0


def test_who_has_more_pauses_longer_but_never_long() -> None:
    crowd = shares(3, 2, 4, 500)
    assert crowd.pause_seconds(1) == 0
    assert 0 < crowd.pause_seconds(0) < crowd.pause_seconds(2) < crowd.pause_seconds(3) <= 0.01


def test_nobody_pauses_where_all_have_as_many_however_many_that_is() -> None:
    assert {shares(500, 500).pause_seconds(slot) for slot in (0, 1)} == {0}


def test_a_worker_that_has_left_is_waited_for_by_nobody() -> None:
    crowd = shares(0, 7)
    assert crowd.pause_seconds(1) > 0
    crowd.forget(0)
    assert crowd.pause_seconds(1) == 0


def test_a_worker_alone_never_pauses() -> None:
    assert shares(7).pause_seconds(0) == 0


def test_the_others_know_at_once_when_a_worker_gains_or_loses_a_connection() -> None:
    shares = Shares()
    busy, idle = CountsConnections(), CountsConnections()
    busy.shares = idle.shares = shares
    idle.slot = 1
    idle.nr_conns = 0
    busy.nr_conns = 2
    assert shares.pause_seconds(busy.slot) > 0
    busy.nr_conns -= 2
    assert shares.pause_seconds(busy.slot) == 0


def test_how_fast_a_connection_was_counts_until_the_next_window_is_over() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ClientSocket(ours.detach()) as client:
        connection = Connection(Config(), client, "", "")
        connection.begin_window(100.0, 9.0)
        assert connection.deadline == 109.0
        connection.moved_bytes = 20_000
        assert connection.pace(101.0) == 10_000  # who has begun is given a second
        connection.begin_window(109.0, 9.0)
        assert (connection.moved_bytes, connection.pace(109.0)) == (0, 2000)
        connection.begin_window(118.0, 9.0)
        assert connection.pace(118.0) == 0
