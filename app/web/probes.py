"""Whether the process lives, and whether the service is ready to answer."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import flask

from ..classifier import Classifier
from ..errors import Draining, IndexProblem, ModelUnavailable
from ..parsers import is_model_file
from ..processes.readiness import Readiness
from ..settings import Settings
from . import schemas
from .answers import json_response
from .operations import operation
from .service import Service, request_state, service, service_of
from .uploads import JSON

log = logging.getLogger(__name__)

blueprint = flask.Blueprint("health", __name__)

# gunicorn stops the whole service when a worker leaves with this status (gunicorn.arbiter.Arbiter.APP_LOAD_ERROR).
HALT_SERVICE = 4
RETRY_SECONDS = 30.0
LOOK_SECONDS = 1.0
WATCH_SECONDS = 2.0


def count_in_flight() -> None:
    """Count the current request as in flight until it ends, unless it is a probe."""
    if flask.request.blueprint != blueprint.name:
        readiness = service().readiness
        readiness.count(1)
        request_state().at_end.callback(readiness.count, -1)


@blueprint.get("/healthz")
@operation({JSON: schemas.Alive})
def healthz() -> flask.Response:
    """Return that the process runs, with or without a model."""
    return json_response(schemas.Alive())


@blueprint.get("/readyz")
@operation({JSON: schemas.Ready}, problems=(ModelUnavailable, Draining))
def readyz() -> flask.Response:
    """Return whether every worker has a model that answers, and the service is not draining."""
    classifier, readiness = service().classifier, service().readiness
    if readiness.is_draining:
        count = readiness.in_flight
        raise Draining(f"Send new requests elsewhere. Requests in flight: {count}.", count)
    if not classifier.is_connected:
        raise ModelUnavailable("The process that owns the GPU has ended; another is being started.")
    warm = readiness.warm_workers
    if warm < readiness.planned or classifier.loaded_model is None:
        failure = classifier.failure
        raise ModelUnavailable(failure.detail if failure else f"{warm} of {readiness.planned} workers have a model.")
    return json_response(schemas.Ready("ready", warm, schemas.Model(**classifier.loaded_model.identity)))


def warm_up_in_background(
    app: flask.Flask,
    readiness: Readiness,
    slot: int,
    *,
    halt: Callable[[int], None] = os._exit,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Load the model in a thread while the worker answers probes; mark it ready once the known photo is answered.

    If a setting names weights, a model file, a bundle, int8 or an index and it cannot serve, the whole service stops,
    unless other workers are ready. After any other failure the worker stays alive and not ready, and tries again every
    30 seconds, since a balancer that asks `/readyz` sends no request that would load the model.
    """
    readiness.slot = slot
    ours = service_of(app)
    ours.readiness, settings, classifier = readiness, ours.settings, ours.classifier
    classifier.slots.elsewhere = readiness.in_flight_elsewhere

    def warm_up() -> None:
        reason = ""
        while new_reason := _try_known_photo(classifier, reason):
            if _names_a_file(settings) and not readiness.warm_workers:
                halt(HALT_SERVICE)
                return
            if new_reason != reason:
                log.critical(
                    "It is tried again every %d seconds, and logged again if the reason changes.", RETRY_SECONDS
                )
            reason = new_reason
            pause(RETRY_SECONDS)
        if not _index_fits(ours) and not readiness.warm_workers:
            halt(HALT_SERVICE)
            return
        if slot == 0:
            classifier.log_sandbox()
        readiness.mark(slot, True)
        if readiness.warm_workers >= readiness.planned:
            log.info("Ready: %s%s", settings.url, "/teach" if settings.teach == "on" else "")

    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()


def keep_watch_in_background(
    classifier: Classifier, readiness: Readiness, slot: int, *, pause: Callable[[float], object] = time.sleep
) -> None:
    """Try the known photo again if photos were asked for and none has succeeded; mark whether it was answered.

    Once it was not answered it is tried until it is, even if other photos succeed before.
    """

    def watch() -> None:
        reason = ""
        while True:
            pause(WATCH_SECONDS)
            if classifier.loaded_model is not None and (reason or classifier.is_in_doubt):
                reason = _try_known_photo(classifier, reason)
                readiness.mark(slot, not reason)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def keep_models_current_in_background(
    classifier: Classifier, *, pause: Callable[[float], object] = time.sleep
) -> None:
    """Look once a second whether the folder of models holds another version, and take it once it was checked.

    Each worker looks for itself, so that for about a second some may answer in the version before.
    """

    def look() -> None:
        while True:
            pause(LOOK_SECONDS)
            classifier.refresh()

    threading.Thread(target=look, name="models", daemon=True).start()


def _names_a_file(settings: Settings) -> bool:
    """Return whether a setting names the file of the model, or a model that only a command can have prepared."""
    names_one = settings.weights or settings.bundle or is_model_file(settings.model)
    return bool(names_one) or settings.precision == "int8"


def _index_fits(ours: Service) -> bool:
    """Return whether the index, if there is one, can be searched with the model; log why not."""
    if ours.index is None:
        return True
    try:
        ours.index.check(ours.classifier.load_model())
    except IndexProblem as error:
        log.critical("TOPTHREE_INDEX cannot be searched: %s", error)
        return False
    return True


def _try_known_photo(classifier: Classifier, known_reason: str) -> str:
    """Return why the model does not answer the known photo, empty if it does; a reason that is known is not logged."""
    try:
        classifier.warm_up()
    except ModelUnavailable as error:
        reason = str(error)
        if reason != known_reason:
            log.critical("No model is ready: %s", reason)
        return reason
    return ""
