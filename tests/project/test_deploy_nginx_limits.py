"""What one client can take of nginx, and what nginx writes of people: run for real with requests that go wrong."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from nginxes import CLIENT, PATIENCE_SECONDS, Nginx, Recorder, is_taken, running, running_nginx
from servers import free_port

from app.settings import MEBI

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx, for example Debian's package nginx"),
]
LARGE = 10_000_000
MAX_LARGE = 3
PREDICT = "/api/v1/predict"
SECRET = "/api/v1/secret-path?secret-query"
PERSON = "203.0.113.77"


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """nginx before a service that takes notes, to which clients say their address."""
    with running(Recorder()) as port, running_nginx(tmp_path, port, addresses=True) as started:
        yield started


def begin(stack: ExitStack, nginx: Nginx, address: str, length: str, target: str = PREDICT) -> socket.socket:
    """Send the head of a request with a body, and only the first byte of that."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", nginx.port), timeout=PATIENCE_SECONDS))
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{CLIENT}: {address}\r\n{length}\r\n\r\n"
    connection.sendall(head.encode() + (b"1" if "chunked" in length else b"x"))
    return connection


def send(nginx: Nginx, address: str, size: int = LARGE) -> httpx.Response:
    return httpx.post(nginx.url + PREDICT, headers={CLIENT: address}, content=bytes(size), timeout=PATIENCE_SECONDS)


def hold_most(stack: ExitStack, nginx: Nginx, address: str, length: str = f"Content-Length: {LARGE}") -> None:
    """Have one client send as many large bodies as it may, and none to its end."""
    for _ in range(MAX_LARGE):
        assert is_taken(begin(stack, nginx, address, f"{length}\r\nExpect: 100-continue"))
    assert send(nginx, address).status_code == 429


@pytest.mark.parametrize(
    "length", [f"Content-Length: {LARGE}", "Content-Length: 68000000", "Transfer-Encoding: chunked"]
)
def test_one_client_has_few_large_bodies_at_once(nginx: Nginx, length: str) -> None:
    with ExitStack() as stack:
        hold_most(stack, nginx, PERSON, length)
        assert send(nginx, PERSON, LARGE - 1).status_code == 200
        assert send(nginx, "203.0.113.78").status_code == 200


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:a0a:a0a:a0a:a0a:a0a:a0a", "2001:db8:a0a:a0a::a", True),  # 0a is a line feed
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_ipv6_network_is_one_client(nginx: Nginx, first: str, second: str, same: bool) -> None:
    with ExitStack() as stack:
        hold_most(stack, nginx, first)
        assert send(nginx, second).status_code == (429 if same else 200)


def ask(nginx: Nginx) -> None:
    httpx.get(nginx.url + SECRET, headers={CLIENT: PERSON}, timeout=PATIENCE_SECONDS)


def send_too_much(nginx: Nginx) -> None:
    with ExitStack() as stack:
        assert b" 413 " in begin(stack, nginx, PERSON, f"Content-Length: {70 * MEBI}", SECRET).recv(100)


def send_much(nginx: Nginx) -> None:
    httpx.post(nginx.url + SECRET, headers={CLIENT: PERSON}, content=bytes(MEBI), timeout=PATIENCE_SECONDS)


def send_much_without_room(nginx: Nginx) -> None:
    shutil.rmtree(nginx.log_file.parent / "body")
    send_much(nginx)


def send_many(nginx: Nginx) -> None:
    with ExitStack() as stack:
        hold_most(stack, nginx, PERSON)
        connection = begin(stack, nginx, PERSON, f"Content-Length: {LARGE}", SECRET)
        assert b" 429 " in connection.recv(100)


def send_slowly(nginx: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(f"GET {SECRET} HTTP/1.1\r\nHost: ".encode())
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)


def send_and_leave(nginx: Nginx) -> None:
    with ExitStack() as stack:
        begin(stack, nginx, PERSON, "Content-Length: 100", SECRET)


def send_what_is_malformed(nginx: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(f"GET {SECRET} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".encode())
        assert b" 400 " in connection.recv(100)


def wait_for_what_never_comes(nginx: Nginx) -> None:
    headers = {CLIENT: PERSON, "Accept": "application/x-ndjson"}
    httpx.post(nginx.url + SECRET, headers=headers, timeout=PATIENCE_SECONDS)


# What goes wrong, and the line that nginx writes of it, if any.
GOES_WRONG: dict[Callable[[Nginx], None], str] = {
    ask: 'status 503, upstream "502", GET, ',
    send_too_much: 'status 413, upstream "-", POST, ',
    send_much: 'status 503, upstream "502", POST, ',
    send_much_without_room: 'status 503, upstream "-", POST, ',
    send_many: 'status 429, upstream "-", POST, ',
    send_slowly: "",
    send_and_leave: "",
    send_what_is_malformed: "",
    wait_for_what_never_comes: 'status 504, upstream "504", POST, ',
}
IMPATIENT = {
    "client_header_timeout 10s": "client_header_timeout 1s",
    "proxy_read_timeout    90s": "proxy_read_timeout 1s",
}
TALKATIVE = {"error_log stderr emerg;": "error_log stderr info;"}


@pytest.mark.parametrize("go_wrong", GOES_WRONG, ids=lambda function: function.__name__)
def test_nginx_writes_no_address_path_or_query(tmp_path: Path, go_wrong: Callable[[Nginx], None]) -> None:
    written = []
    for changes in (IMPATIENT, IMPATIENT | TALKATIVE):
        with ExitStack() as stack:
            is_there = go_wrong in (send_slowly, send_and_leave, wait_for_what_never_comes)
            upstream = stack.enter_context(running(Recorder())) if is_there else free_port()
            nginx = stack.enter_context(running_nginx(tmp_path, upstream, changes=changes, addresses=True))
            go_wrong(nginx)
            written.append(nginx.end())
            nginx.log_file.unlink()
    ours, talkative = written
    assert "secret-path" in talkative  # or nothing would have gone wrong
    assert re.findall(r"secret|\d+\.\d+\.\d+\.\d+", ours) == []
    assert GOES_WRONG[go_wrong] in ours
    assert bool(ours) is bool(GOES_WRONG[go_wrong])


def test_nginx_still_says_why_it_does_not_start(tmp_path: Path) -> None:
    wrong = {"limit_conn_status 429;": "limit_conn_status 1;"}
    with pytest.raises(AssertionError, match="does not listen"), running_nginx(tmp_path, 1, changes=wrong):
        pass
    assert "value must be between 400 and 599" in (tmp_path / "log").read_text(encoding="utf-8")
