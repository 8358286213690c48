"""The worker over real sockets: a request gets the same answer in whatever pieces it arrives."""

from __future__ import annotations

import copy
import json
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from waiting import wait_until
from workers import ALIVE, CHUNKED, PATIENCE_SECONDS, PHOTO, POST, WHOLE, Running, ask, read_answer

from app.server import requests
from app.telemetry.logs import RateFilter
from app.web.service import service_of


def test_photo_in_one_piece_and_byte_by_byte_get_the_same(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    status, headers, whole = ask(server, WHOLE)
    assert status == 200
    assert "connection" not in headers  # HTTP/1.1 keeps connections
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(len(WHOLE)):
            connection.sendall(WHOLE[start : start + 1])
        assert read_answer(connection)[::2] == (200, whole)


def test_pipelined_requests_are_answered_in_order(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    chunked = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PHOTO), PHOTO)
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(ALIVE + WHOLE + chunked + b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = answers.read()
    assert [line.split()[1] for line in text.splitlines() if line.startswith(b"HTTP/1.1 ")] == [
        b"200",
        b"200",
        b"200",
        b"404",
    ]


def test_blank_lines_before_a_request_are_skipped(run_worker: Callable[..., Running]) -> None:
    assert ask(run_worker(), b"\r\n" * 50_001 + ALIVE)[0] == 200


def test_client_that_asks_first_is_told_to_go_on_once(run_worker: Callable[..., Running]) -> None:
    with run_worker().connect() as connection:
        connection.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(PHOTO)
        assert read_answer(connection)[0] == 200


def test_client_that_asks_first_with_too_much_is_refused_unread(run_worker: Callable[..., Running]) -> None:
    status, headers, _ = ask(run_worker(), POST % (10**9, b"Expect: 100-continue\r\n"))
    assert (status, headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (POST % (9, b"Content-Length: 10\r\n"), 400),
        (POST % (9, b"Transfer-Encoding: chunked\r\n"), 400),
        (POST % (9, b"Transfer-Encoding:\r\n"), 400),
        (POST.replace(b"%d", b"%s") % (b"9" * 19, b""), 413),
        (POST.replace(b"%d", b"%s") % (b"9" * 5000, b""), 400),
        (POST.replace(b"/api", b"http://[/api") % (9, b""), 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 400),
        (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"5\r\nab", 400),
        (CHUNKED + b"0000000000000005;" + b"x" * 40_000, 400),
        (CHUNKED + b"80000\r\n" + bytes(0x80000) + b"\r\n5;" + b"x" * 60_000, 400),
        (CHUNKED + b"0x5\r\nphoto\r\n", 400),
        (CHUNKED + b"1\r\nx\r\n" * 10_000, 400),
        (CHUNKED + b"5;bad ext\r\nphoto\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %s\r\n" % bytes(5000).replace(b"\0", b"x") * 22, 431),
    ],
)
def test_unusual_framing_holds_no_thread(run_worker: Callable[..., Running], sent: bytes, expected: int) -> None:
    server = run_worker()
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(server.connect()).sendall(sent)
        assert ask(server, WHOLE)[0] == 200
    status, headers, body = ask(server, sent)
    assert (status, headers["content-type"]) == (expected, "application/problem+json")
    assert "browser" not in json.loads(body)["detail"]  # no sentence of the framework's


@pytest.mark.parametrize(
    ("sent", "status", "slug", "text"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad-request", "HTTP"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad-request", "Host is missing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400, "bad-request", "repeated"),
        (b"GET /\r\n\r\n", 400, "bad-request", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "bad-request", "CR LF"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad-request", "CR LF"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "bad-request", "header"),
        (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % bytes(5000).replace(b"\0", b"x"), 414, "address-too-long", "4,094"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, "header-too-large", "more fields"),
    ],
)
def test_malformed_http_is_a_problem_like_any_other(
    run_worker: Callable[..., Running], sent: bytes, status: int, slug: str, text: str
) -> None:
    found, headers, body = ask(run_worker(), sent)
    assert (found, headers["content-type"], headers["connection"]) == (status, "application/problem+json", "close")
    document = json.loads(body)
    assert (document["status"], document["type"]) == (status, f"/problems/{slug}")
    assert document["instance"].endswith(headers["x-request-id"])
    assert text in document["detail"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /?key=secret HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /?key=secret HTTP/1.1\nHost: a\n\n",
        # waitress quotes these words
        b"secret / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n secret\r\nHost: a\r\n\r\n",
    ],
)
def test_malformed_requests_are_logged_without_secrets(
    run_worker: Callable[..., Running], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    assert any(isinstance(each, RateFilter) for each in requests.log.filters)
    monkeypatch.setattr(requests.log, "filters", [])  # others may have used up its records
    assert ask(run_worker(), sent)[0] == 400
    assert "Invalid request from ip=" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("head", [POST % (6_000_000, b""), CHUNKED + b"%x\r\n" % 6_000_000])
def test_a_large_photo_is_never_written_to_disk(
    run_worker: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: bytes
) -> None:
    server = run_worker()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))  # to make a temporary file fails
    end = b"\r\n0\r\n\r\n" if head.startswith(CHUNKED) else b""
    assert ask(server, head + PHOTO + bytes(6_000_000 - len(PHOTO)) + end)[0] == 200


def test_an_exception_in_a_look_ends_only_its_connection(
    run_worker: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = run_worker()
    with server.connect() as connection:
        connection.sendall(ALIVE)
        assert read_answer(connection)[0] == 200
        (channel,) = server.worker.connections.channels
        monkeypatch.setattr(channel, "look", lambda: 1 // 0)
        connection.sendall(ALIVE)
        with suppress(ConnectionError):  # the reset may come first
            assert connection.recv(1) in (b"", b"H")
        assert ask(server, WHOLE)[0] == 200
        wait_until(lambda: channel not in server.worker.connections.channels)


def test_http_1_0_needs_no_host(run_worker: Callable[..., Running]) -> None:
    assert ask(run_worker(), b"GET /healthz HTTP/1.0\r\n\r\n")[0] == 200


def test_refusal_at_capacity_needs_no_thread_and_keeps_alive(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    admission = service_of(server.worker.wsgi).admission
    leaves = []
    while admission.refusal_if_full() is None:
        leaves.append(admission.enter(0))
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(WHOLE)
            status, headers, _ = read_answer(connection)
            assert (status, headers.get("connection"), headers["retry-after"]) == (503, None, "1")
        expecting = ask(server, POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert (expecting[0], expecting[1]["connection"]) == (503, "close")
        leaves[0]()
        connection.sendall(WHOLE)
        assert read_answer(connection)[0] == 200


def test_stop_answers_what_is_on_its_way_and_then_closes(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    with server.connect() as half, server.connect() as idle:
        idle.sendall(ALIVE)
        assert "connection" not in read_answer(idle)[1]
        half.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert half.recv(100).startswith(b"HTTP/1.1 100")
        server.stop()
        wait_until(lambda: server.worker.connections.is_stopping)
        idle.sendall(ALIVE)
        assert read_answer(idle)[1]["connection"] == "close"
        half.sendall(PHOTO)
        status, headers, _ = read_answer(half)
        assert (status, headers["connection"]) == (200, "close")
    server.thread.join(PATIENCE_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_nothing_is_left_to_a_worker_that_stops(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    another = copy.copy(server.worker.readiness)
    another.planned, another.slot = 2, 1
    another.hold(3)
    another.mark(0, True)
    with server.connect() as half:
        half.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert half.recv(100).startswith(b"HTTP/1.1 100")
        assert another.holds_more()
        server.stop()
        wait_until(lambda: not another.holds_more())
        half.sendall(PHOTO)
        assert read_answer(half)[0] == 200


def test_malformed_chunks_end_the_connection_and_say_so(run_worker: Callable[..., Running]) -> None:
    with run_worker().connect() as connection:
        connection.sendall(CHUNKED + b"5\r\nphotoXX0\r\n\r\n" + ALIVE)
        status, headers, _ = read_answer(connection)
        assert (status, headers["connection"]) == (400, "close")


def test_a_connection_stays_after_a_body_that_nobody_read(run_worker: Callable[..., Running]) -> None:
    with run_worker().connect() as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + bytes(65_536))
            status, headers, _ = read_answer(connection)
            assert (status, headers.get("connection")) == (200, None)


def test_worker_that_stops_closes_its_listener(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    server.stop()
    server.thread.join(PATIENCE_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_without_a_key_nothing_of_a_large_body_is_taken_in(run_worker: Callable[..., Running], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("")
    server = run_worker(api_keys_file=keys)
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(POST % (9_000_000, b""))
            status, headers, _ = read_answer(connection)
            assert (status, headers.get("connection")) == (401, None)
            connection.sendall(bytes(9_000_000))  # the connection goes on after the body that was not taken
    status, headers, _ = ask(server, POST % (9_000_000, b"Expect: 100-continue\r\n"))
    assert (status, headers["connection"]) == (401, "close")
    assert server.worker.connections.held_bytes < 1000


def test_malformed_chunks_nobody_reads_only_end_the_connection(
    run_worker: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    with run_worker().connect() as connection:
        connection.sendall(CHUNKED.replace(b"POST /api/v1/predict", b"GET /healthz") + b"3;=\r\nabc\r\n0\r\n\r\n")
        assert read_answer(connection)[0] == 200
        assert connection.recv(1) == b""
    assert [record for record in caplog.records if record.exc_info] == []


def test_an_address_with_a_slash_too_many_takes_a_large_photo(run_worker: Callable[..., Running]) -> None:
    photo = PHOTO + bytes(1 << 20)  # bytes behind a PNG's end belong to nothing
    head = POST.replace(b"/api", b"//api") % (len(photo), b"")
    with run_worker().connect() as connection:
        connection.sendall(head)
        connection.sendall(photo)
        assert read_answer(connection)[0] == 200
