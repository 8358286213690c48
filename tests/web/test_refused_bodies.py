"""What is refused is read on for a while, within bounds, so that its sender learns why."""

from __future__ import annotations

import socket

import flask
import pytest
from shapes import SlowBody

from app.web.refused_bodies import DRAIN_BYTES, drain_refused


class BrokenBody:
    """A body whose sender has left."""

    def read(self, size: int = -1) -> bytes:
        """Fail as a socket does."""
        raise ConnectionResetError


def refused(app: flask.Flask, body: object, **environ: object) -> flask.Response:
    """Refuse a request whose body this is, as far as the last hook."""
    with app.test_request_context("/", method="POST", environ_overrides={"wsgi.input": body} | environ):
        return drain_refused(flask.Response(status=413))


def test_refused_body_is_read_on_after_the_answer_and_within_bounds(app: flask.Flask) -> None:
    body = SlowBody()
    response = refused(app, body, **{"wsgi.input_terminated": True})
    assert body.taken == 0
    response.close()
    assert DRAIN_BYTES <= body.taken < DRAIN_BYTES + 1_000_000


def test_body_that_the_server_does_not_end_is_left_alone(app: flask.Flask) -> None:
    body = SlowBody()
    refused(app, body).close()
    assert body.taken == 0


def test_client_that_has_left_is_let_go(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="app.web.refused_bodies"):
        refused(app, BrokenBody(), **{"wsgi.input_terminated": True}).close()
    assert "ConnectionResetError" in caplog.text


def test_client_that_stops_sending_is_let_go(app: flask.Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.refused_bodies.DRAIN_PAUSE_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as body:
        refused(app, body, **{"wsgi.input_terminated": True, "gunicorn.socket": ours}).close()
        theirs.sendall(b"late")
        assert ours.recv(10) == b"late"
