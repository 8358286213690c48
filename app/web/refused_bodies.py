"""Bodies that nobody wants any more: read on for a while, so that their senders learn why."""

from __future__ import annotations

import logging
import socket
import time
from typing import IO

import flask

from ..errors import Problem
from ..settings import MEBI

log = logging.getLogger(__name__)

# What is read, and for how long at most, so that a client still sending can read why it was refused.
DRAIN_BYTES = 256 * MEBI
DRAIN_SECONDS = 30.0
DRAIN_PAUSE_SECONDS = 5.0
_CHUNK_BYTES = 64 * 1024


def drain_refused(response: flask.Response) -> flask.Response:
    """Read on for a while after a refusal has been sent, within bounds of size and time.

    Browsers and simple clients send their whole body before they read; one that is still sending when its
    connection closes sees a reset and never learns why it was refused.
    """
    environ = flask.request.environ
    # Our worker reads on by itself after a body that it did not take in, and holds no thread for it.
    if is_left_to_server():
        return response
    # Only where the server ends the body itself (gunicorn does) can reading past it not wait for ever.
    if response.status_code >= 400 and environ.get("wsgi.input_terminated"):
        response.call_on_close(lambda: _drain(environ["wsgi.input"], environ.get("gunicorn.socket")))
    return response


def is_left_to_server() -> bool:
    """Tell whether our worker has handed on a request whose body it did not take in, or that was cut short."""
    return getattr(flask.request.environ["wsgi.input"], "is_left_to_server", False)


def raise_servers_refusal() -> None:
    """Raise the problem for which our worker did not take in the current request's body, if there is one."""
    refusal: Problem | None = getattr(flask.request.environ["wsgi.input"], "refusal", None)
    if refusal is not None:
        raise refusal


def free_place() -> None:
    """Free the place that our worker gave a body whose key was not known, now that it is."""
    getattr(flask.request.environ["wsgi.input"], "free_place", lambda: None)()


def _drain(source: IO[bytes], connection: socket.socket | None) -> None:
    left = DRAIN_BYTES
    deadline = time.monotonic() + DRAIN_SECONDS
    if connection is not None:
        connection.settimeout(DRAIN_PAUSE_SECONDS)
    try:
        while left > 0 and time.monotonic() < deadline and (chunk := source.read(_CHUNK_BYTES)):
            left -= len(chunk)
    except OSError as error:  # the client has left, or stopped sending; nothing is owed to it
        log.debug("A refused body broke off: %r", error)
