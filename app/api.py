"""The HTTP interface for scripts, version 1, under `/api/v1`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flask

from .classifier import Classifier, Model, Prediction
from .errors import Problem
from .images import Photo, decode
from .uploads import check_size, integer_parameter, read_photo, read_photos, settings_of_app

blueprint = flask.Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.after_request
def _forbid_storing(response: flask.Response) -> flask.Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/predict")
def predict() -> flask.Response:
    """Answer with the most likely classes of one photo."""
    top = _top()
    photo = decode(read_photo(), max_pixels=settings_of_app().max_pixels)
    classifier = current_classifier()
    answer = _answer(photo, classifier.predict([photo], top=top)[0])
    return flask.jsonify(answer | {"model": classifier.model.identity})


@blueprint.post("/predict/batch")
def predict_batch() -> flask.Response:
    """Answer for each photo of a batch, in order; a bad one carries its problem, the others their answer."""
    top = _top()
    results = [_answer_or_problem(data, top) for data in read_photos()]
    return flask.jsonify({"results": results, "model": current_classifier().model.identity})


@blueprint.get("/model")
def model() -> flask.Response:
    """Describe the model that answers: identity, source, input, accuracy where it is published."""
    return flask.jsonify(describe(current_classifier().model))


@blueprint.get("/labels")
def labels() -> flask.Response:
    """List all classes with their names."""
    return flask.jsonify({"labels": [vars(label) for label in current_classifier().model.labels]})


def current_classifier() -> Classifier:
    """Return the current application's classifier."""
    classifier: Classifier = flask.current_app.extensions["topthree"]
    return classifier


def describe(model: Model) -> dict[str, object]:
    """Build the public description of a model; the file's place on the server is not part of it."""
    record = model.weights.record
    published = model.weights.is_published
    return model.identity | {
        "source": model.weights.source,
        "fallback_reason": model.weights.reason or None,
        "classes": len(model.labels),
        "input": dataclasses.asdict(record.geometry),
        "published_accuracy": {"top1": record.top1, "top5": record.top5} if published else None,
        "licence": record.licence if published else None,
    }


def _top() -> int:
    return integer_parameter("top", default=3, low=1, high=1000)


def _answer(photo: Photo, predictions: Sequence[Prediction]) -> dict[str, object]:
    return {
        "predictions": [vars(prediction) for prediction in predictions],
        "image": {
            "width": photo.width,
            "height": photo.height,
            "format": photo.format,
            "sha256": photo.sha256,
        },
    }


def _answer_or_problem(data: bytes, top: int) -> dict[str, object]:
    """Answer for one photo of a batch. Only one is decoded at a time: small files can hold huge pictures."""
    settings = settings_of_app()
    try:
        photo = decode(check_size(data, settings.max_upload_bytes), max_pixels=settings.max_pixels)
    except Problem as problem:
        return problem.as_dict()
    return _answer(photo, current_classifier().predict([photo], top=top)[0])
