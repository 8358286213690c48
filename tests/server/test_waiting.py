"""Slow clients hold no thread, their connections end when their time is over, and an idle worker keeps little."""

from __future__ import annotations

import gc
import json
import logging
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from waiting import wait_until
from workers import ALIVE, CHUNKED, PATIENCE_SECONDS, PHOTO, POST, WHOLE, Running, ask, read_answer

from app.parsers import base64_length
from app.server import connections
from app.telemetry import metrics


@pytest.mark.parametrize("sent", [b"", b"POST /api", POST % (9999, b""), POST % (9999, b"") + PHOTO[:50]])
def test_many_more_slow_clients_than_threads_delay_nobody(run_worker: Callable[..., Running], sent: bytes) -> None:
    server = run_worker()
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(server.connect()).sendall(sent)
        assert ask(server, WHOLE)[0] == 200


@pytest.mark.parametrize("sent", [b"POST /api", POST % (9999, b"") + PHOTO[:50], POST % (9999, b"")])
def test_slow_request_is_answered_with_a_problem(run_worker: Callable[..., Running], sent: bytes) -> None:
    with run_worker(stall_seconds=1).connect() as connection:
        connection.sendall(sent)
        status, headers, body = read_answer(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert len(headers["x-request-id"]) == 32
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["type"] == "/problems/request-timeout"
        assert connection.recv(1) == b""


def test_silent_connection_is_closed_without_an_answer(run_worker: Callable[..., Running]) -> None:
    with run_worker(stall_seconds=1).connect() as connection:
        assert connection.recv(1) == b""


def test_body_that_moves_fast_enough_may_outlast_a_stall(run_worker: Callable[..., Running]) -> None:
    server = run_worker(stall_seconds=1, min_bytes_per_second=20)
    body = PHOTO.ljust(1000, b"\0")
    with server.connect() as connection:
        connection.sendall(POST % (len(body), b""))
        ticking = threading.Event()
        for start in range(0, len(body), 40):
            connection.sendall(body[start : start + 40])
            ticking.wait(0.08)
        assert read_answer(connection)[0] == 200


def test_refused_uploads_hold_no_thread(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(server.connect())
            connection.sendall(POST % (10**9, b"") + bytes(1000))
            assert read_answer(connection)[0] == 413
        assert ask(server, WHOLE)[0] == 200


def test_clients_that_ask_first_and_leave_do_no_harm(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    for _ in range(20):
        with server.connect() as connection:  # closed by a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
    assert ask(server, WHOLE)[0] == 200


def test_slow_readers_hold_no_thread_and_get_all_of_it(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    labels = b"GET /api/v1/labels HTTP/1.1\r\nHost: a\r\n\r\n" * 40
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(server.connect()).sendall(labels)
        assert ask(server, WHOLE)[0] == 200
    expected = ask(server, labels[: len(labels) // 40])[2]
    with server.connect() as connection:
        connection.sendall(labels.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        with connection.makefile("rb") as answers:
            assert answers.read().count(expected) == 40


def test_too_much_received_at_once_costs_the_slowest(run_worker: Callable[..., Running]) -> None:
    limit = 1 << 20
    server = run_worker(max_upload_bytes=limit, max_batch_bytes=limit, max_waiting_bytes=base64_length(limit))
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(server.connect()) for _ in range(3)]
        first.sendall(POST % (limit, b"") + bytes(1000))
        for connection in (stack.enter_context(server.connect()) for _ in range(2)):
            connection.sendall(POST % (limit, b"") + bytes(limit * 7 // 8))
        status, headers, _ = read_answer(first)
        assert (status, headers["retry-after"]) == (503, "1")
        assert ask(server, ALIVE)[0] == 200


def test_a_worker_at_rest_gives_memory_back(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    assert ask(server, WHOLE)[0] == 200
    wait_until(lambda: server.worker.heap.is_trimmed)


def test_one_connection_too_many_ends_the_longest_idle(run_worker: Callable[..., Running]) -> None:
    server = run_worker({"worker_connections": 2})
    with server.connect() as oldest, server.connect() as other:
        oldest.sendall(ALIVE)
        other.sendall(ALIVE)
        assert (read_answer(oldest)[0], read_answer(other)[0]) == (200, 200)
        assert ask(server, WHOLE)[0] == 200
        assert oldest.recv(1) == b""


def test_one_client_s_connections_cannot_push_out_another_s(
    run_worker: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_IDLE_SECONDS", 0.0)
    server = run_worker({"worker_connections": 4})
    with ExitStack() as stack:
        other = stack.enter_context(socket.create_connection(server.address, PATIENCE_SECONDS, ("127.0.0.2", 0)))
        other.sendall(ALIVE)
        assert read_answer(other)[0] == 200
        first, *_ = [stack.enter_context(server.connect()) for _ in range(5)]
        assert first.recv(1) == b""
        other.sendall(WHOLE)
        assert read_answer(other)[0] == 200


def test_much_that_one_client_sends_does_not_cost_a_slower_one(run_worker: Callable[..., Running]) -> None:
    server = run_worker(**SMALL_LIMITS)
    with ExitStack() as stack:
        other = stack.enter_context(socket.create_connection(server.address, PATIENCE_SECONDS, ("127.0.0.2", 0)))
        other.sendall(POST % (len(PHOTO), b"") + PHOTO[:20])
        wait_until(lambda: "body" in waits_of(server))
        greedy = [stack.enter_context(server.connect()) for _ in range(2)]
        for connection in greedy:
            connection.sendall(POST % (SMALL, b"") + bytes(SMALL * 7 // 8))
        wait_until(lambda: "end" in waits_of(server))
        other.sendall(PHOTO[20:])
        assert read_answer(other)[0] == 200


def test_stop_answers_late_requests_with_a_problem(run_worker: Callable[..., Running]) -> None:
    server = run_worker({"graceful_timeout": 1})
    with server.connect() as connection:
        connection.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        server.stop()
        assert read_answer(connection)[0] == 503


SMALL = 1 << 20
SMALL_LIMITS = {"max_upload_bytes": SMALL, "max_batch_bytes": SMALL, "max_waiting_bytes": base64_length(SMALL)}


def test_event_of_a_closed_connection_does_no_harm(run_worker: Callable[..., Running]) -> None:
    server = run_worker({"worker_connections": 2})
    with server.connect() as oldest, server.connect() as other:
        for connection in (oldest, other):
            connection.sendall(ALIVE)
            assert read_answer(connection)[0] == 200
        with server.standing_still():
            newest = server.connect()
            oldest.sendall(ALIVE)  # its bytes and the newcomer are ready in the same round
        with newest:
            newest.sendall(WHOLE)
            assert read_answer(newest)[0] == 200


def test_uploads_that_are_refused_as_they_move_do_no_harm(
    run_worker: Callable[..., Running],
) -> None:
    server = run_worker(**SMALL_LIMITS)
    with ExitStack() as stack:
        uploads = [stack.enter_context(server.connect()) for _ in range(6)]
        for connection in uploads:
            connection.sendall(POST % (SMALL, b"") + bytes(1000))
        for _ in range(6):
            with server.standing_still():
                for connection in uploads:
                    with suppress(OSError):  # its answer has come, and it was closed
                        connection.send(bytes(200_000), socket.MSG_DONTWAIT)
        assert ask(server, ALIVE)[0] == 200
        assert server.thread.is_alive()


def waits_of(server: Running) -> list[str]:
    """List what the connections wait for."""
    return [channel.wait for channel in server.worker.connections.channels]


def test_without_idle_connections_the_slowest_makes_room(run_worker: Callable[..., Running]) -> None:
    server = run_worker({"worker_connections": 2})
    with server.connect() as first, server.connect() as second:
        first.sendall(POST % (999, b"X-Request-ID: mine\r\n"))
        wait_until(lambda: "body" in waits_of(server))
        second.sendall(POST % (999, b"") + bytes(500))
        wait_until(lambda: waits_of(server) == ["body", "body"])
        assert ask(server, WHOLE)[0] == 200
        status, headers, _ = read_answer(first)
        assert (status, headers["x-request-id"]) == (503, "mine")
        assert ask(server, WHOLE)[0] == 200


def test_a_fast_upload_is_not_taken_for_the_slowest(run_worker: Callable[..., Running]) -> None:
    server = run_worker(**SMALL_LIMITS, stall_seconds=1, min_bytes_per_second=1)
    with server.connect() as slow:
        slow.sendall(POST % (SMALL, b"") + bytes(900_000))
        wait_until(lambda: server.worker.connections.held_bytes > 900_000)
        (conn,) = server.worker.connections.channels
        for _ in range(2):
            before = conn.since
            slow.sendall(bytes(5))
            wait_until(lambda before=before: conn.since > before)
        with server.connect() as fast:
            fast.sendall(POST % (SMALL, b"") + bytes(800_000))
            assert read_answer(slow)[0] == 503
            fast.sendall(bytes(SMALL - 800_000))
            assert read_answer(fast)[0] == 415


def test_requests_in_a_row_wait_for_their_turn(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    labels = b"GET /api/v1/labels HTTP/1.1\r\nHost: a\r\n\r\n"
    size = len(ask(server, labels)[2])
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(labels * 5000)
        wait_until(lambda: any(conn.wait == "reader" for conn in server.worker.connections.channels))
        assert server.worker.connections.held_bytes < 3 * size + 5000 * len(labels)


def test_client_that_closes_its_side_still_gets_all(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    labels = b"GET /api/v1/labels HTTP/1.1\r\nHost: a\r\n"
    expected = ask(server, labels + b"\r\n")[2]
    server.worker.sockets[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        connection.sendall(labels + b"Connection: close\r\n\r\n")
        wait_until(lambda: [conn.wait for conn in server.worker.connections.channels] == ["reader"])
        (conn,) = server.worker.connections.channels
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: conn.has_left)
        with connection.makefile("rb") as answer:
            assert answer.read().endswith(expected)


def test_reader_that_never_reads_is_ended(run_worker: Callable[..., Running]) -> None:
    server = run_worker(stall_seconds=1)
    with server.connect() as connection:
        connection.sendall(b"GET /api/v1/labels HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        wait_until(lambda: any(conn.wait == "reader" for conn in server.worker.connections.channels))
        wait_until(lambda: not server.worker.connections.channels)


def test_refusals_of_the_loop_are_counted_logged_and_named(
    run_worker: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> list[float]:
        lines = metrics.render("")[0].decode().splitlines()
        names = ('problems_total{problem="request-timeout"}', 'method="POST",route="/api/v1/predict",status="408"}')
        return [sum(float(line.split()[-1]) for line in lines if name in line) for name in names]

    before = counted()
    with caplog.at_level(logging.INFO, "app.requests"), run_worker(stall_seconds=1).connect() as connection:
        connection.sendall(POST % (999, b"X-Request-ID: mine\r\n") + b"x")
        status, headers, _ = read_answer(connection)
    assert (status, headers["x-request-id"]) == (408, "mine")
    assert [after - old for after, old in zip(counted(), before, strict=True)] == [1, 1]
    assert [record.status for record in caplog.records if getattr(record, "request_id", "") == "mine"] == [408]


def test_of_a_request_that_was_answered_nothing_stays_in_memory(run_worker: Callable[..., Running]) -> None:
    server = run_worker(max_upload_bytes=8 * SMALL, max_batch_bytes=8 * SMALL)
    sent = CHUNKED + b"%x\r\n" % (20 * SMALL) + bytes(20 * SMALL)
    with server.connect() as connection:
        tracemalloc.start()
        try:
            connection.sendall(sent + b"\r\n0\r\n\r\n")
            assert read_answer(connection)[0] == 413
            wait_until(lambda: [conn.wait for conn in server.worker.connections.channels] == ["end"])
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < SMALL
        finally:
            tracemalloc.stop()


def test_client_refused_early_that_sends_on_reads_the_answer(
    run_worker: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = run_worker(min_bytes_per_second=1)
    with server.connect() as connection:
        connection.sendall(POST.replace(b"/api/v1/predict", b"/healthz") % (2 * SMALL, b""))
        wait_until(lambda: [conn.wait for conn in server.worker.connections.channels] == ["end"])
        for _ in range(20):
            connection.sendall(bytes(SMALL // 10))
        assert read_answer(connection)[0] == 405


def test_pages_of_welcome_origins_can_read_refusals_of_the_loop(run_worker: Callable[..., Running]) -> None:
    server = run_worker(stall_seconds=1, cors_origins="https://shop.example")
    for origin, allowed in ((b"https://shop.example", "https://shop.example"), (b"https://other.example", None)):
        with server.connect() as connection:
            connection.sendall(POST % (999, b"Origin: %s\r\n" % origin) + b"x")
            status, headers, _ = read_answer(connection)
        assert (status, headers.get("access-control-allow-origin"), headers["vary"]) == (408, allowed, "origin")
