"""With keys in use, two large forms at most whose key is in their body are taken at once, over real sockets."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes import colour_png, fake_classifier
from shapes import form
from waiting import wait_until
from workers import Running, ask, read_answer

from app import create_app
from app.errors import Overloaded
from app.settings import Settings
from app.web.keys import Key, digest_of, new_token
from app.web.uploads import REFUSAL, RELEASE

PHOTO = colour_png(9, 5, 1)
TOKEN = new_token()
LARGE = PHOTO + bytes(1 << 20)  # bytes behind a PNG's end belong to nothing


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Write a file with one key."""
    path = tmp_path / "keys"
    path.write_text(Key("alice", True, digest_of(TOKEN)).as_line())
    return path


def request(
    photo: bytes = LARGE, token: str = TOKEN, *, path: str = "/", fields: str = "", accept: str = "text/html"
) -> bytes:
    """Write a request with a form that has a key and a photo."""
    body = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\n%s\r\n' % token.encode()
    body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n--x--\r\n' % photo
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


BEARER = f"Authorization: Bearer {TOKEN}\r\n"


def hold(server: Running, stack: ExitStack, count: int = 2) -> list[socket.socket]:
    """Send the first halves of `count` large forms, and wait until the worker has them."""
    wait_until(lambda: server.worker.connections.held_bytes == 0)  # what came before has ended for the worker too
    held = [stack.enter_context(server.connect()) for _ in range(count)]
    half = request()[: len(request()) // 2]
    for connection in held:
        connection.sendall(half)
    wait_until(lambda: server.worker.connections.held_bytes == count * len(half))
    return held


def test_a_third_large_form_is_told_to_try_again(run_worker: Callable[..., Running], keys: Path) -> None:
    server = run_worker(api_keys_file=keys)
    with ExitStack() as stack:
        held = hold(server, stack)
        status, headers, body = ask(server, request()[:2000])
        assert (status, headers["retry-after"], headers.get("connection")) == (503, "1", None)
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert b"<h1" in body
        assert ask(server, request()[: len(request()) // 2])[0] == 503
        for connection in held:
            connection.sendall(request()[len(request()) // 2 :])
            assert read_answer(connection)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(PHOTO), 200),
        (request(PHOTO, "wrong"), 401),
        (request(fields=BEARER), 200),
        (request(path="/api/v1/predict", fields=BEARER), 200),
        (request(path="/api/v1/predict")[:2000], 401),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ],
    ids=["small form", "small form, wrong key", "key in the header", "API", "API, no key", "probe"],
)
def test_all_else_is_answered_beside_two_large_forms(
    run_worker: Callable[..., Running], keys: Path, sent: bytes, status: int
) -> None:
    server = run_worker(api_keys_file=keys)
    with ExitStack() as stack:
        hold(server, stack)
        assert ask(server, sent)[0] == status


def test_form_that_comes_in_one_piece_needs_a_place_too(run_worker: Callable[..., Running], keys: Path) -> None:
    server = run_worker(api_keys_file=keys)
    sent = request(PHOTO + bytes(70_000))
    with ExitStack() as stack:
        hold(server, stack)
        with server.connect() as connection:
            with server.standing_still():  # so that all of it is there when the worker reads
                connection.sendall(sent)
            assert read_answer(connection)[0] == 503
    wait_until(lambda: ask(server, sent)[0] == 200)


def leave(connection: socket.socket) -> None:
    """Close a connection without sending more."""
    connection.close()


def reset(connection: socket.socket) -> None:
    """Reset a connection, as the system does for a process that is killed with bytes unread."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def close_one_side(connection: socket.socket) -> None:
    """End the sending early and read the answer."""
    connection.shutdown(socket.SHUT_WR)
    assert read_answer(connection)[0] == 400


def wait_too_long(connection: socket.socket) -> None:
    """Send no more."""
    assert read_answer(connection)[0] == 408


def end_wrongly(connection: socket.socket) -> None:
    """Send something else where the last boundary belongs."""
    connection.sendall(request()[len(request()) // 2 : -10] + b"no boundary")
    assert read_answer(connection)[0] == 400


def send_the_rest(connection: socket.socket) -> None:
    """Send the form to its end."""
    connection.sendall(request()[len(request()) // 2 :])
    assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("end", [leave, reset, close_one_side, wait_too_long, end_wrongly, send_the_rest])
def test_place_is_free_again_however_a_form_ends(
    run_worker: Callable[..., Running], keys: Path, end: Callable[[socket.socket], None]
) -> None:
    server = run_worker(api_keys_file=keys, stall_seconds=1)
    with ExitStack() as stack:
        for _ in range(2):
            for connection in hold(server, stack):
                end(connection)
            wait_until(lambda: ask(server, request())[0] == 200)


def test_a_kept_connection_takes_a_place_for_each_form(run_worker: Callable[..., Running], keys: Path) -> None:
    server = run_worker(api_keys_file=keys)
    with server.connect() as connection:
        for token, status in ((TOKEN, 200), ("wrong", 401), (TOKEN, 200), (TOKEN, 200)):
            connection.sendall(request(token=token))
            assert read_answer(connection)[0] == status


def test_without_keys_large_forms_are_not_counted(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    with ExitStack() as stack:
        hold(server, stack, 4)
        assert ask(server, request())[0] == 200


@pytest.mark.parametrize(("token", "status", "freed"), [(TOKEN, 415, 1), ("wrong", 401, 0)], ids=["known", "wrong"])
def test_place_is_free_once_the_key_is_known(
    make_settings: Callable[..., Settings], keys: Path, token: str, status: int, freed: int
) -> None:
    client = create_app(make_settings(api_keys_file=keys), fake_classifier()).test_client()
    body = request(b"text, not a photo", token).partition(b"\r\n\r\n")[2]
    releases: list[bool] = []
    answer = client.post(
        "/",
        data=body,
        content_type="multipart/form-data; boundary=x",
        environ_overrides={RELEASE: lambda: releases.append(True)},
    )
    assert (answer.status_code, len(releases)) == (status, freed)


def test_refused_form_is_not_read(make_settings: Callable[..., Settings], keys: Path) -> None:
    client = create_app(make_settings(api_keys_file=keys), fake_classifier()).test_client()
    body = form(PHOTO)
    source = io.BytesIO(body.pop("data"))
    answer = client.post("/", **body, environ_overrides={"wsgi.input": source, REFUSAL: Overloaded("Busy.", 1)})
    assert (answer.status_code, answer.headers["Retry-After"], source.tell()) == (503, "1", 0)
