"""The HTTP interface for scripts, version 1, under `/api/v1`."""

from __future__ import annotations

import dataclasses
import time

import flask

from . import heatmaps
from .classifier import Answer, Classifier, Model
from .errors import Problem
from .uploads import check_size, integer_parameter, read_photo, read_photos, request_deadline, settings_of_app

blueprint = flask.Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.after_request
def _forbid_storing(response: flask.Response) -> flask.Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/predict")
def predict() -> flask.Response:
    """Answer with the most likely classes of one photo."""
    top, heatmap = _top(), _heatmap()
    max_pixels, deadline = settings_of_app().max_pixels, request_deadline()
    classifier = current_classifier()
    answer = classifier.classify(read_photo(), max_pixels=max_pixels, top=top, heatmap=heatmap, deadline=deadline)
    response = flask.jsonify(_as_dict(answer) | {"model": classifier.model.identity})
    response.headers["Server-Timing"] = server_timing(answer)
    return response


@blueprint.post("/predict/batch")
def predict_batch() -> flask.Response:
    """Answer for each photo of a batch, in order; a bad one carries its problem, the others their answer."""
    top, heatmap, deadline = _top(), _heatmap(), request_deadline()
    photos = [_checked(data) for data in read_photos()]
    max_pixels = settings_of_app().max_pixels
    classifier = current_classifier()
    answers = classifier.classify_many(photos, max_pixels=max_pixels, top=top, heatmap=heatmap, deadline=deadline)
    results = [answer.as_dict() if isinstance(answer, Problem) else _as_dict(answer) for answer in answers]
    return flask.jsonify({"results": results, "model": classifier.model.identity})


@blueprint.post("/heatmap")
def heatmap() -> flask.Response:
    """Answer with the photo under the heat map of one class, the likeliest unless `class_id` names another."""
    classifier = current_classifier()
    classes = len(classifier.model.labels)
    class_id = integer_parameter("class_id", default=-1, low=0, high=classes - 1)
    likeliest = class_id < 0
    answer = classifier.classify(
        read_photo(),
        max_pixels=settings_of_app().max_pixels,
        top=1,
        heatmap=True,
        heatmap_class=None if likeliest else class_id,
        thumbnail_side=heatmaps.LONGEST_SIDE,
        deadline=request_deadline(),
    )
    picture, mimetype = _draw_heatmap(answer)
    response = flask.Response(picture, mimetype=mimetype)
    response.headers["Server-Timing"] = server_timing(answer)
    response.vary.add("Accept")
    return response


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
        "measured_accuracy": model.manifest.accuracy if model.manifest else None,
    }


def _top() -> int:
    return integer_parameter("top", default=3, low=1, high=1000)


def _heatmap() -> bool:
    return integer_parameter("heatmap", default=0, low=0, high=1) == 1


def _as_dict(answer: Answer) -> dict[str, object]:
    predictions = [dict(vars(prediction)) for prediction in answer.predictions]
    for prediction, grid in zip(predictions, answer.heatmaps or (), strict=False):
        prediction["heatmap"] = grid
    return {"predictions": predictions, "image": answer.image}


def _draw_heatmap(answer: Answer) -> tuple[bytes, str]:
    """Draw the answer's one heat map as PNG or, where the client prefers that, WebP."""
    assert answer.heatmaps is not None
    assert answer.thumbnail is not None
    grid = answer.heatmaps[0]
    mimetype = flask.request.accept_mimetypes.best_match(["image/png", "image/webp"], default="image/png")
    kind = mimetype.removeprefix("image/").upper()
    return heatmaps.draw(answer.thumbnail, grid, answer.image["crop"], kind), mimetype  # type: ignore[arg-type]


def server_timing(answer: Answer) -> str:
    """Write a `Server-Timing` header (W3C): where the time of this answer went, in milliseconds."""
    stages = {
        "decode": answer.decode_seconds,
        "queue": answer.queue_seconds,
        "infer": answer.infer_seconds,
        "total": time.monotonic() - flask.g.arrived,
    }
    times = [f"{name};dur={1000 * seconds:.2f}" for name, seconds in stages.items()]
    return ", ".join([*times, f'batch;desc="{answer.batch_size}"'])


def _checked(data: bytes) -> bytes | Problem:
    try:
        return check_size(data, settings_of_app().max_upload_bytes)
    except Problem as problem:
        return problem
