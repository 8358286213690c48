"""Whether the process lives, and whether the service is ready to answer."""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections.abc import Callable

import flask

from .api import current_classifier
from .classifier import Classifier
from .errors import ModelUnavailable
from .settings import Settings

log = logging.getLogger(__name__)

blueprint = flask.Blueprint("health", __name__)

# gunicorn stops the whole service when a worker leaves with this status (gunicorn.arbiter.Arbiter.APP_LOAD_ERROR).
HALT_SERVICE = 4
RETRY_SECONDS = 30.0


class Readiness:
    """Which planned workers are warm: one byte each in memory that master and workers share across the fork."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self._warm = mmap.mmap(-1, mmap.PAGESIZE)

    def mark(self, slot: int, warm: bool) -> None:
        """Note whether the worker in this slot has named the photo that is known."""
        self._warm[slot] = int(warm)

    @property
    def warm_workers(self) -> int:
        """Count the warm workers."""
        return sum(self._warm[:])


@blueprint.after_request
def _forbid_storing(response: flask.Response) -> flask.Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/healthz")
def healthz() -> flask.Response:
    """Answer as long as the process can, whatever the model does."""
    return flask.jsonify({"status": "alive"})


@blueprint.get("/readyz")
def readyz() -> flask.Response:
    """Answer 200 when every planned worker has named the photo that is known; loads nothing."""
    classifier = current_classifier()
    readiness: Readiness = flask.current_app.extensions["topthree_readiness"]
    warm = readiness.warm_workers
    if warm < readiness.planned or classifier.loaded_model is None:
        raise ModelUnavailable(classifier.failure or f"{warm} of {readiness.planned} workers have a model.")
    return flask.jsonify({"status": "ready", "workers": warm, "model": classifier.loaded_model.identity})


def warm_up_in_background(
    app: flask.Flask,
    readiness: Readiness,
    slot: int,
    *,
    halt: Callable[[int], None] = os._exit,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Load the model in a thread, so that the worker answers probes meanwhile; mark it ready when it answers.

    Weights, a bundle or an int8 model that were asked for by name and cannot serve stop the whole service, unless
    other workers answer by now. For any other reason it stays alive and not ready, and tries again from time to
    time: a balancer that asks `/readyz` sends no request that would.
    """
    app.extensions["topthree_readiness"] = readiness
    classifier: Classifier = app.extensions["topthree"]
    settings: Settings = app.config["TOPTHREE"]

    def warm_up() -> None:
        while not _is_warm(classifier):
            is_explicit = settings.weights or settings.bundle or settings.precision == "int8"
            if is_explicit and not readiness.warm_workers:
                halt(HALT_SERVICE)
                return
            pause(RETRY_SECONDS)
        readiness.mark(slot, True)
        log.info("Ready.")

    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()


def _is_warm(classifier: Classifier) -> bool:
    try:
        classifier.warm_up()
    except ModelUnavailable as error:
        log.critical("No model is ready: %s", error)
        return False
    return True
