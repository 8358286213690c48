"""The HTTP interface for scripts, version 1, under `/api/v1`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import flask

from ..classifier import Answer, Classifier
from ..errors import NoHeatMap, Problem
from ..model import Model
from ..photos import heatmaps
from ..photos.archives import Entry
from ..photos.protocol import MAX_THUMBNAIL_SIDE
from .answers import Rendered, current_answerer, server_timing, to_json, with_member, write_timing
from .parameters import flag_parameter, integer_parameter, read_parameters, refuse_unknown
from .ratelimits import count_photos
from .uploads import (
    BATCH,
    JSON,
    ONE_PHOTO,
    admit_body,
    read_photo,
    read_photos,
    request_deadline,
    settings_of_app,
    takes,
)

NDJSON = "application/x-ndjson"
NPY = "application/x-npy"
THUMBNAIL_SIDE, MIN_THUMBNAIL_SIDE = 640, 16

blueprint = flask.Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.after_request
def _forbid_storing(response: flask.Response) -> flask.Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/predict")
@takes(ONE_PHOTO)
def predict() -> flask.Response:
    """Answer with the most likely classes of one photo."""
    parameters, answerer = read_parameters(), current_answerer()
    rendered = answerer.predict(read_photo(), parameters)
    return _json_of_photo(rendered)


@blueprint.post("/embed")
@takes(ONE_PHOTO)
def embed() -> flask.Response:
    """Answer with the embedding of one photo, as JSON or, where `Accept` prefers it, as a .npy file."""
    refuse_unknown("normalize")
    normalize, as_npy = flag_parameter("normalize"), _prefers(NPY)
    answerer = current_answerer()
    rendered = answerer.embed(read_photo(), normalize=normalize, as_npy=as_npy)
    response = flask.Response(rendered.body, mimetype=NPY) if as_npy else _json_of_photo(rendered)
    response.headers["Server-Timing"] = server_timing(rendered.computed, rendered.source)
    response.vary.add("Accept")
    return response


@blueprint.post("/predict/batch")
@takes(BATCH)
def predict_batch() -> flask.Response:
    """Answer for each photo of a batch, in order; a bad one carries its problem, the others their answer.

    Where `Accept` prefers NDJSON each answer is a line of its own, sent as soon as it is ready.
    """
    parameters, answerer = read_parameters(), current_answerer()
    as_lines = _prefers(NDJSON)
    entries = read_photos()
    count_photos(len(entries))
    answers = answerer.predict_many([entry.photo for entry in entries], parameters)
    if as_lines:
        # With the request's context, so that the request counts as present until its last line.
        lines = flask.stream_with_context(_lines(entries, answers, answerer.model))
        response = flask.Response(lines, mimetype=NDJSON)
        response.headers["X-Accel-Buffering"] = "no"  # nginx would keep the lines until it had them all
    else:
        body = _batch(entries, dict(answers))
        response = flask.Response(with_member(body, "model", answerer.model.identity) + b"\n", mimetype=JSON)
    response.vary.add("Accept")
    return response


@blueprint.post("/heatmap")
@takes(ONE_PHOTO)
def heatmap() -> flask.Response:
    """Answer with the photo under the heat map of one class, the likeliest unless `class_id` names another."""
    refuse_unknown("class_id")
    photo, model = read_photo(), _model()
    class_id = integer_parameter("class_id", default=-1, low=0, high=len(model.labels) - 1)
    if model.engine.head is None:
        raise NoHeatMap(f"The model {model.weights.record.name} has no heat maps.")
    likeliest = class_id < 0
    answer = current_classifier().classify(
        photo,
        max_pixels=settings_of_app().max_pixels,
        top=1,
        heatmap=True,
        heatmap_class=None if likeliest else class_id,
        thumbnail_side=heatmaps.LONGEST_SIDE,
        model=model,
        deadline=request_deadline(),
    )
    picture, mimetype = _draw_heatmap(answer)
    response = flask.Response(picture, mimetype=mimetype)
    response.headers["Server-Timing"] = server_timing(answer)
    response.vary.add("Accept")
    return response


@blueprint.post("/thumbnail")
@takes(ONE_PHOTO)
def thumbnail() -> flask.Response:
    """Answer with the upright photo, small, as JPEG or, where `Accept` prefers it, WebP; no model is needed."""
    refuse_unknown("side")
    side = integer_parameter("side", default=THUMBNAIL_SIDE, low=MIN_THUMBNAIL_SIDE, high=MAX_THUMBNAIL_SIDE)
    photo, max_pixels = read_photo(), settings_of_app().max_pixels
    pixels, decode_seconds, queue_seconds = current_classifier().thumbnail(
        photo, side=side, max_pixels=max_pixels, deadline=request_deadline()
    )
    mimetype = flask.request.accept_mimetypes.best_match(["image/jpeg", "image/webp"], default="image/jpeg")
    response = flask.Response(heatmaps.encode(pixels, mimetype.removeprefix("image/").upper()), mimetype=mimetype)
    response.headers["Server-Timing"] = write_timing({"decode": decode_seconds, "queue": queue_seconds})
    response.vary.add("Accept")
    return response


@blueprint.get("/model")
def model() -> flask.Response:
    """Describe the model that answers: identity, source, input, accuracy where it is published."""
    refuse_unknown()
    return flask.jsonify(describe(_model()))


@blueprint.get("/labels")
def labels() -> flask.Response:
    """List all classes with their names."""
    refuse_unknown()
    return flask.jsonify({"labels": [vars(label) for label in _model().labels]})


def current_classifier() -> Classifier:
    """Return the current application's classifier."""
    classifier: Classifier = flask.current_app.extensions["topthree"]
    return classifier


def describe(model: Model) -> dict[str, object]:
    """Build the public description of a model, which names no file or host."""
    record = model.weights.record
    published = model.weights.is_published
    return model.identity | {
        "source": model.weights.source,
        "fallback_reason": model.weights.public_reason or None,
        "classes": len(model.labels),
        "input": dataclasses.asdict(record.geometry),
        "published_accuracy": {"top1": record.top1, "top5": record.top5} if published else None,
        "licence": record.licence if published else None,
        "measured_accuracy": model.manifest.accuracy if model.manifest else None,
        "heatmap": dict(zip(("rows", "columns"), model.engine.grid, strict=True)) if model.engine.head else None,
    }


def _model() -> Model:
    """Return the model; who must wait until it is loaded is in the house like those who bring photos."""
    if current_classifier().loaded_model is None:
        admit_body(0)
    return current_classifier().model


def _prefers(mimetype: str) -> bool:
    return flask.request.accept_mimetypes.best_match([JSON, mimetype], default=JSON) == mimetype


def _json_of_photo(rendered: Rendered) -> flask.Response:
    body = with_member(rendered.body, "model", rendered.model.identity) + b"\n"
    response = flask.Response(body, mimetype=JSON)
    response.headers["Server-Timing"] = server_timing(rendered.computed, rendered.source)
    return response


def _batch(entries: Sequence[Entry], answers: Mapping[int, Rendered | Problem]) -> bytes:
    """Write all results in their order; where all were refused for the service's reasons, raise the first of these."""
    problems = [answer for answer in answers.values() if isinstance(answer, Problem) and answer.status >= 500]
    if len(problems) == len(entries):
        raise problems[0]
    results = [_result({}, entry, answers[index]) for index, entry in enumerate(entries)]
    return b'{"results":[' + b",".join(results) + b"]}"


def _lines(
    entries: Sequence[Entry], answers: Iterable[tuple[int, Rendered | Problem]], model: Model
) -> Iterator[bytes]:
    """Write each result as a line with its `index`, as it comes, and the model as the last."""
    for index, answer in answers:
        yield _result({"index": index}, entries[index], answer) + b"\n"
    yield to_json({"model": model.identity}) + b"\n"


def _result(members: dict[str, object], entry: Entry, answer: Rendered | Problem) -> bytes:
    """Write one photo's result, after members of its own and, for a file of an archive, its name."""
    if entry.name:
        members = members | {"name": entry.name}
    body = to_json(answer.as_dict()) if isinstance(answer, Problem) else answer.body
    return to_json(members)[:-1] + b"," + body[1:] if members else body


def _draw_heatmap(answer: Answer) -> tuple[bytes, str]:
    """Draw the answer's one heat map as PNG or, where the client prefers that, WebP."""
    assert answer.heatmaps is not None
    assert answer.thumbnail is not None
    grid = answer.heatmaps[0]
    mimetype = flask.request.accept_mimetypes.best_match(["image/png", "image/webp"], default="image/png")
    kind = mimetype.removeprefix("image/").upper()
    return heatmaps.draw(answer.thumbnail, grid, answer.image["crop"], kind), mimetype  # type: ignore[arg-type]
