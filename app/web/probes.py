"""Whether the process lives, and whether the service is ready to answer."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import flask

from ..classifier import Classifier
from ..errors import Draining, ModelUnavailable
from ..processes.memory import shared_words
from ..settings import Settings
from .api import current_classifier

log = logging.getLogger(__name__)

blueprint = flask.Blueprint("health", __name__)

# gunicorn stops the whole service when a worker leaves with this status (gunicorn.arbiter.Arbiter.APP_LOAD_ERROR).
HALT_SERVICE = 4
RETRY_SECONDS = 30.0
WATCH_SECONDS = 2.0


class Readiness:
    """Which workers are warm, what each has in flight, and whether the service drains.

    All of it lies in memory that master and workers share across the fork; each number is an aligned word, so that no
    process reads one half written.
    """

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.slot = 0
        self._words = shared_words()
        self._slots = (len(self._words) - 1) // 2
        self._lock = threading.Lock()

    def mark(self, slot: int, warm: bool) -> None:
        """Record whether the worker in this slot has answered the known photo."""
        self._words[1 + slot] = int(warm)

    def forget(self, slot: int) -> None:
        """Record that the worker in this slot has left, and what it had in flight with it."""
        self._words[1 + slot] = self._words[1 + self._slots + slot] = 0

    def count(self, change: int) -> None:
        """Note that this process has one request more, or one less, in flight."""
        with self._lock:
            self._words[1 + self._slots + self.slot] += change

    @property
    def warm_workers(self) -> int:
        """Count the warm workers."""
        return sum(self._words[1 : 1 + self._slots])

    @property
    def in_flight(self) -> int:
        """Count the requests in flight in all workers, but for probes."""
        return sum(self._words[1 + self._slots :])

    def in_flight_elsewhere(self) -> int:
        """Count the requests in flight in the other workers; fast, since it is called for every photo."""
        first = 1 + self._slots
        return sum(self._words[first : first + self.planned]) - self._words[first + self.slot]

    @property
    def is_draining(self) -> bool:
        """Return whether the service drains: it answers requests, but says that it is not ready."""
        return bool(self._words[0])

    @is_draining.setter
    def is_draining(self, draining: bool) -> None:
        self._words[0] = int(draining)


def init_app(app: flask.Flask) -> None:
    """Count what is in flight, for one process alone until `warm_up_in_background` says otherwise."""
    app.extensions["topthree_readiness"] = Readiness(planned=1)
    app.before_request(_count_in)
    app.teardown_request(_count_out)


def _count_in() -> None:
    if flask.request.blueprint != blueprint.name:
        flask.g.readiness = readiness = _current_readiness()
        readiness.count(1)


def _count_out(_: BaseException | None = None) -> None:
    readiness: Readiness | None = flask.g.pop("readiness", None)
    if readiness is not None:
        readiness.count(-1)


def _current_readiness() -> Readiness:
    readiness: Readiness = flask.current_app.extensions["topthree_readiness"]
    return readiness


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
    """Answer 200 if every planned worker has answered the known photo and the service does not drain; load nothing."""
    classifier = current_classifier()
    readiness = _current_readiness()
    if readiness.is_draining:
        count = readiness.in_flight
        raise Draining(f"Send new requests elsewhere. Requests in flight: {count}.", count)
    warm = readiness.warm_workers
    if warm < readiness.planned or classifier.loaded_model is None:
        failure = classifier.failure
        raise ModelUnavailable(failure.detail if failure else f"{warm} of {readiness.planned} workers have a model.")
    return flask.jsonify({"status": "ready", "workers": warm, "model": classifier.loaded_model.identity})


def warm_up_in_background(
    app: flask.Flask,
    readiness: Readiness,
    slot: int,
    *,
    halt: Callable[[int], None] = os._exit,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Load the model in a thread while the worker answers probes; mark it ready once the known photo is answered.

    If a setting names weights, a bundle or int8 and they cannot serve, the whole service stops, unless other workers
    are ready. After any other failure the worker stays alive and not ready, and tries again every 30 seconds, since a
    balancer that asks `/readyz` sends no request that would load the model.
    """
    readiness.slot = slot
    app.extensions["topthree_readiness"] = readiness
    classifier: Classifier = app.extensions["topthree"]
    classifier.slots.elsewhere = readiness.in_flight_elsewhere
    settings: Settings = app.config["TOPTHREE"]

    def warm_up() -> None:
        while not _is_warm(classifier):
            is_explicit = settings.weights or settings.bundle or settings.precision == "int8"
            if is_explicit and not readiness.warm_workers:
                halt(HALT_SERVICE)
                return
            pause(RETRY_SECONDS)
        if slot == 0:
            classifier.log_sandbox()
        readiness.mark(slot, True)
        if readiness.warm_workers >= readiness.planned:
            log.info("Ready: %s", settings.url)

    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()


def keep_watch_in_background(
    classifier: Classifier, readiness: Readiness, slot: int, *, pause: Callable[[float], object] = time.sleep
) -> None:
    """Try the known photo again if photos were asked for and none has succeeded; mark whether it was answered."""

    def watch() -> None:
        while True:
            pause(WATCH_SECONDS)
            if classifier.loaded_model is not None and classifier.is_in_doubt:
                readiness.mark(slot, _is_warm(classifier))

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _is_warm(classifier: Classifier) -> bool:
    try:
        classifier.warm_up()
    except ModelUnavailable as error:
        log.critical("No model is ready: %s", error)
        return False
    return True
