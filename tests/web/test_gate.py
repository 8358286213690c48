"""At capacity the worker's loop refuses photos, in the same words as a thread would, and only plain requests."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import flask
import pytest
from fakes import colour_png, fake_classifier

from app import create_app
from app.server.arrivals import Arrival, Limits, State
from app.server.door import Door, Refused
from app.settings import Settings
from app.telemetry import metrics
from app.web.keys import Key, digest_of, new_token
from app.web.uploads import FRAMING_BYTES

PHOTO = colour_png(9)
LIMITS = Limits(head_bytes=4000, body_bytes=100_000, all_bytes=100_000, stall_seconds=9, bytes_per_second=1)
PLAIN = b"POST /api/v1/predict?top=5 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(PHOTO)


@pytest.fixture
def full(make_settings: Callable[..., Settings]) -> Callable[..., flask.Flask]:
    """Make applications whose house is full."""

    def make(**settings: object) -> flask.Flask:
        found = create_app(make_settings(**settings), fake_classifier())
        fill(found)
        return found

    return make


def fill(app: flask.Flask) -> list[Callable[[], None]]:
    """Admit as many requests as there may be."""
    admission = app.extensions["topthree_admission"]
    leaves = []
    while admission.refusal_if_full() is None:
        leaves.append(admission.enter(0))
    return leaves


def knock(app: flask.Flask, head: bytes, body: bytes = PHOTO, *, may_keep: bool = True) -> Refused | None:
    """Have a request arrive whole at the door of an application."""
    arrival = Arrival(LIMITS)
    assert arrival.feed(head + body) is State.WHOLE
    return Door(app).refuse(arrival, may_keep=may_keep)


def read(answer: bytes) -> tuple[str, dict[str, str], dict[str, object]]:
    """Take an answer apart: status line, headers, document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields), json.loads(body)


def test_the_door_says_what_a_thread_says(full: Callable[..., flask.Flask]) -> None:
    app = full()
    refused = knock(app, PLAIN.replace(b"Host: a\r\n", b"Host: a\r\nx-request-id: mine\r\n"))
    assert refused is not None
    assert refused.keeps_connection
    line, headers, document = read(refused.answer)
    assert line == "HTTP/1.1 503 Overloaded"
    thread = app.test_client().post("/api/v1/predict", data=PHOTO, headers={"X-Request-ID": "mine"})
    assert document == thread.get_json()
    # These are the server's, for whatever a thread answers.
    for name in ("Connection", "Content-Length", "Date"):
        del headers[name]
    assert headers == {name: value for name, value in thread.headers.items() if name != "Content-Length"}


@pytest.mark.parametrize("route", ["predict", "predict/batch", "embed", "heatmap"])
def test_every_route_that_takes_photos_has_the_door(full: Callable[..., flask.Flask], route: str) -> None:
    assert knock(full(), PLAIN.replace(b"predict", route.encode())) is not None


def test_who_is_let_in_passes(full: Callable[..., flask.Flask], make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(), fake_classifier())
    assert knock(app, PLAIN) is None
    leaves = fill(app)
    assert knock(app, PLAIN) is not None
    leaves[0]()
    assert knock(app, PLAIN) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"GET"),
        (b"POST", b"post"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/api/v1/predict", b"/classify"),
        (b"/api/v1/predict", b"/api/v1/unknown"),
        (b"/api/v1/predict", b"/api/v1/Predict"),
        (b"/api/v1/predict", b"http://a/api/v1/predict"),
        (b"Host: a", b"Origin: https://shop.example"),
        (b"Host: a", b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (b"Host: a", b"Host : a"),
        (b"Host: a", b"Ho_st: a"),
        (b"Host: a", b"Host: a\r\n folded"),
        (b"Host: a", b"Host: \xe4"),
        (b"Host: a", b"Host: a\x00"),
        (b"Host: a", b"nothing"),
        (b"\r\nHost", b"\nHost"),
        (b"POST", b"\r\nPOST"),
    ],
)
def test_what_is_not_plain_is_for_a_thread(full: Callable[..., flask.Flask], old: bytes, new: bytes) -> None:
    assert old in PLAIN
    assert knock(full(), PLAIN.replace(old, new, 1)) is None


def test_a_body_in_chunks_is_for_a_thread(full: Callable[..., flask.Flask]) -> None:
    head = PLAIN.replace(b"Content-Length: %d" % len(PHOTO), b"Transfer-Encoding: chunked")
    assert knock(full(), head, b"1\r\na\r\n0\r\n\r\n") is None


def test_requests_that_come_together_are_for_a_thread(full: Callable[..., flask.Flask]) -> None:
    assert knock(full(), PLAIN, PHOTO + PLAIN) is None


@pytest.mark.parametrize(
    ("field", "may_keep", "keeps"),
    [
        (b"", True, True),
        (b"Connection: keep-alive\r\n", True, True),
        (b"connection: Close\r\n", True, False),
        (b"Connection: upgrade\r\n", True, False),
        (b"", False, False),
    ],
)
def test_connection_goes_on_where_both_sides_want_it(
    full: Callable[..., flask.Flask], field: bytes, may_keep: bool, keeps: bool
) -> None:
    refused = knock(full(), PLAIN.replace(b"Host", field + b"Host"), may_keep=may_keep)
    assert refused is not None
    assert refused.keeps_connection is keeps
    assert read(refused.answer)[1]["Connection"] == ("keep-alive" if keeps else "close")


def test_a_refusal_is_counted_and_logged_as_any_answer(
    full: Callable[..., flask.Flask], caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> list[float]:
        lines = metrics.render("")[0].decode().splitlines()
        names = ('topthree_problems_total{problem="overloaded"}', 'route="/api/v1/predict",status="503"}')
        return [sum(float(line.split()[-1]) for line in lines if name in line) for name in names]

    app = full()
    before = counted()
    with caplog.at_level(logging.INFO, "app.requests"):
        refused = knock(app, PLAIN)
    assert refused is not None
    assert [after - old for after, old in zip(counted(), before, strict=True)] == [1, 1]
    (record,) = (record for record in caplog.records if record.name == "app.requests")
    assert record.request_id == read(refused.answer)[1]["X-Request-ID"]
    assert (record.status, record.bytes_in, record.bytes_out) == (503, len(PHOTO), len(refused.answer))


@pytest.mark.parametrize("setting", [{"log_addresses": "on"}, {"traces": "http://127.0.0.1:4318"}])
def test_where_who_was_refused_is_to_be_seen_a_thread_sees_to_it(
    full: Callable[..., flask.Flask], setting: dict[str, object]
) -> None:
    assert knock(full(**setting), PLAIN) is None


def begins(app: flask.Flask, head: bytes) -> bool:
    """Have a head arrive at the door, and tell whether its body is waited for."""
    arrival = Arrival(LIMITS)
    assert arrival.feed(head) is State.BODY
    return Door(app).wants_body(arrival)


LARGE = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n%s\r\n"


@pytest.mark.parametrize(
    ("path", "wants"),
    [
        (b"/api/v1/predict", True),
        (b"/api/v1/predict?top=5", True),
        (b"/api/v1/%70redict", True),
        (b"http://a/api/v1/predict?top=5", True),
        (b"/", True),
        (b"/healthz", False),
        (b"/api/v1/labels", False),
        (b"/api/v1/predict/", False),
        (b"//api/v1/predict", True),
        (b"/%2Fapi/v1/predict", True),
        (b"http://a//api/v1/predict", True),
        (b"h2+x://a/api/v1/predict", True),
        (b"http://a", True),
        (b"*", False),
    ],
)
def test_large_bodies_are_waited_for_where_photos_are_taken(app: flask.Flask, path: bytes, wants: bool) -> None:
    assert begins(app, LARGE % (path, b"")) is wants
    assert begins(app, LARGE.replace(b"90000", b"9") % (path, b""))


@pytest.mark.parametrize(
    ("route", "most"),
    [("predict", 4 * 90_000 // 3 + 4), ("embed", 4 * 90_000 // 3 + 4), ("predict/batch", 200_000), ("../..", 90_000)],
)
def test_no_larger_bodies_are_waited_for_than_a_route_takes(
    make_settings: Callable[..., Settings], route: str, most: int
) -> None:
    limits = {"max_upload_bytes": 90_000, "max_batch_bytes": 200_000, "max_waiting_bytes": 200_000}
    app = create_app(make_settings(**limits), fake_classifier())
    path = b"/" if route == "../.." else f"/api/v1/{route}".encode()
    for size, wants in ((most + FRAMING_BYTES, True), (most + FRAMING_BYTES + 1, False)):
        arrival = Arrival(dataclasses.replace(LIMITS, body_bytes=10**6))
        arrival.feed(LARGE.replace(b"90000", b"%d" % size) % (path, b""))
        assert Door(app).wants_body(arrival) is wants


def test_only_posts_bring_photos(app: flask.Flask) -> None:
    for method in (b"GET", b"PUT", b"OPTIONS"):
        assert not begins(app, LARGE.replace(b"POST", method) % (b"/api/v1/predict", b""))


def test_bodies_of_unknown_length_are_waited_for_where_photos_are_taken(app: flask.Flask) -> None:
    chunked = LARGE.replace(b"Content-Length: 90000", b"Transfer-Encoding: chunked")
    assert begins(app, chunked % (b"/api/v1/embed", b""))
    assert begins(app, chunked % (b"/", b""))
    assert not begins(app, chunked % (b"/docs", b""))


def test_bodies_are_waited_for_from_those_who_have_a_key(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    token, keys = new_token(), tmp_path / "keys"
    for enabled in (True, False):
        keys.write_text(Key("alice", enabled, digest_of(token)).as_line())
        app = create_app(make_settings(api_keys_file=keys), fake_classifier())
        bearer = b"Authorization: bearer %s\r\n"
        assert begins(app, LARGE % (b"/api/v1/predict", bearer % token.encode())) is enabled
        assert not begins(app, LARGE % (b"/api/v1/predict", bearer % b"other"))
        assert not begins(app, LARGE % (b"/api/v1/predict", b""))
        assert begins(app, LARGE % (b"/", b""))  # its key may be a field of the form
        assert not begins(app, LARGE.replace(b"Content-Length: 90000", b"Transfer-Encoding: chunked") % (b"/", b""))
