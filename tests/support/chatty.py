"""An application for gunicorn whose libraries warn, fail in threads and write several lines at once."""

from __future__ import annotations

import logging
import threading
import warnings

import flask
from fakes import fake_classifier

from app import create_app


def create() -> flask.Flask:
    """Build the application; a request for `/healthz` makes all the noise that Python has ways for."""
    app = create_app(classifier=fake_classifier())

    @app.before_request
    def make_noise() -> None:
        if flask.request.path == "/healthz":
            warnings.warn("first\nsecond", RuntimeWarning, stacklevel=1)
            logging.getLogger("a.library").warning("first\nsecond")
            thread = threading.Thread(target=_fail, name="noisy")
            thread.start()
            thread.join()

    return app


def _fail() -> None:
    raise RuntimeError("first\nsecond")
