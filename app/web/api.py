"""The HTTP API, version 1, under `/api/v1`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flask
import msgspec

from ..classifier import Answer
from ..errors import NoEmbedding, NoHeatMap, Problem, UnknownModel
from ..model import Model
from ..model.verdicts import Outputs
from ..photos import heatmaps
from ..photos.archives import Entry
from ..photos.protocol import MAX_THUMBNAIL_SIDE
from . import schemas
from .answers import (
    Rendered,
    current_answerer,
    encode,
    json_response,
    photo_response,
    server_timing,
    with_members_before,
    write_timing,
)
from .operations import BINARY, TEXT, operation
from .parameters import MODEL, MODELS, PREDICTION, Flag, Integer, read_parameters, refuse_unknown
from .ratelimits import count_photos
from .service import service
from .uploads import JSON, admit_body, read_photo, read_photos, request_deadline

NDJSON = "application/x-ndjson"
NPY = "application/x-npy"

NORMALIZE = Flag("normalize", "1 scales the embedding to the length (L2) 1.")
CLASS_ID = Integer(
    "class_id",
    "The class to draw; by default the most likely one. The largest is the model's last class.",
    low=0,
    high=999,
)
SIDE = Integer(
    "side",
    "The longest side in pixels; a photo is never enlarged.",
    low=16,
    high=MAX_THUMBNAIL_SIDE,
    default=640,
)

blueprint = flask.Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.post("/predict")
@operation({JSON: schemas.Answer}, takes="photo", parameters=(*PREDICTION, MODELS), problems=(UnknownModel,))
def predict() -> flask.Response:
    """Return the most likely classes of one photo.

    The same photo, model and parameters have the same answer, byte for byte. Several models answer from one forward
    pass, or one for each fine-tuned model, and each counts as a request.
    """
    parameters, names = read_parameters(), MODELS.read()
    count_photos(len(names))
    answerer = current_answerer(names)
    rendered = answerer.predict(read_photo(), parameters)
    return photo_response(rendered)


@blueprint.post("/predict/batch")
@operation(
    {JSON: schemas.Batch, NDJSON: TEXT}, takes="photos", parameters=(*PREDICTION, MODELS), problems=(UnknownModel,)
)
def predict_batch() -> flask.Response:
    """Return the most likely classes of many photos.

    Results come in the order of the photos; a photo that cannot be classified has its problem in its place. If the
    service could not classify any photo, the whole answer is that problem. As NDJSON each result is a line with its
    `index`, sent as soon as it is ready; the last line is `{"model":{…}}`.
    """
    parameters, names = read_parameters(), MODELS.read()
    answerer = current_answerer(names)
    as_lines = _prefers(NDJSON)
    entries = read_photos()
    count_photos(len(entries) * max(1, len(names)))
    answers = answerer.predict_many([entry.photo for entry in entries], parameters)
    model = answerer.load_model()
    response = _stream(entries, answers, model) if as_lines else _batch(entries, dict(answers), model)
    response.vary.add("Accept")
    return response


@blueprint.post("/embed")
@operation(
    {JSON: schemas.Embedding, NPY: BINARY},
    takes="photo",
    parameters=(NORMALIZE, MODEL),
    problems=(NoEmbedding, UnknownModel),
)
def embed() -> flask.Response:
    """Return the model's embedding of one photo.

    It is the spatial mean of the last feature map, float32. `.npy` is NumPy's own format, one dimension.
    """
    refuse_unknown()
    normalize, as_npy = NORMALIZE.read(), _prefers(NPY)
    answerer = current_answerer(MODEL.read())
    rendered = answerer.embed(read_photo(), normalize=normalize, as_npy=as_npy)
    if as_npy:
        response = flask.Response(rendered.body, mimetype=NPY)
        response.headers["Server-Timing"] = server_timing(rendered.computed, rendered.source)
    else:
        response = photo_response(rendered)
    response.vary.add("Accept")
    return response


@blueprint.post("/heatmap")
@operation(
    {"image/png": BINARY, "image/webp": BINARY},
    takes="photo",
    parameters=(CLASS_ID, MODEL),
    problems=(NoHeatMap, UnknownModel),
)
def heatmap() -> flask.Response:
    """Return the photo under the heat map of a class, as a picture."""
    refuse_unknown()
    answerer, photo = current_answerer(MODEL.read()), read_photo()
    model = answerer.load_model()
    class_id = CLASS_ID.read_or(-1, high=len(model.labels) - 1)
    if model.head is None:
        raise NoHeatMap(f"The model {model.name} has no heat maps.")
    chosen = class_id if class_id >= 0 else None
    answer = answerer.classify(
        photo, Outputs(top=1, heatmap=True, heatmap_class=chosen, thumbnail_side=heatmaps.MAX_SIDE)
    )
    picture, mimetype = _draw_heatmap(answer)
    response = flask.Response(picture, mimetype=mimetype)
    response.headers["Server-Timing"] = server_timing(answer)
    response.vary.add("Accept")
    return response


@blueprint.post("/thumbnail")
@operation({"image/jpeg": BINARY, "image/webp": BINARY}, takes="photo", parameters=(SIDE,))
def thumbnail() -> flask.Response:
    """Return the upright photo, small, as a picture.

    For photos that a browser cannot show, such as HEIC and TIFF. No model is needed.
    """
    refuse_unknown()
    pixels, decode_seconds, queue_seconds = current_answerer().thumbnail(read_photo(), SIDE.read())
    mimetype = flask.request.accept_mimetypes.best_match(["image/jpeg", "image/webp"], default="image/jpeg")
    response = flask.Response(heatmaps.encode(pixels, mimetype.removeprefix("image/").upper()), mimetype=mimetype)
    response.headers["Server-Timing"] = write_timing({"decode": decode_seconds, "queue": queue_seconds})
    response.vary.add("Accept")
    return response


@blueprint.get("/model")
@operation({JSON: schemas.ModelDescription}, parameters=(MODEL,), problems=(UnknownModel,))
def model() -> flask.Response:
    """Return the description of a model, by default the one that answers if a request names none."""
    refuse_unknown()
    found = _model()
    service().classifier.make_ready([found], request_deadline())  # for the size of its heat maps
    return json_response(describe(found))


@blueprint.get("/models")
@operation({JSON: schemas.ModelList})
def models() -> flask.Response:
    """Return all models that answer, the default one first."""
    refuse_unknown()
    default = _model()
    found = service().classifier.loaded_models
    return json_response(schemas.ModelList([_listed(each, is_default=each.name == default.name) for each in found]))


@blueprint.get("/labels")
@operation({JSON: schemas.Labels}, parameters=(MODEL,), problems=(UnknownModel,))
def labels() -> flask.Response:
    """Return all classes of a model with their names."""
    refuse_unknown()
    return json_response(schemas.Labels([schemas.Label(**vars(label)) for label in _model().labels]))


def describe(model: Model) -> schemas.ModelDescription:
    """Build the public description of a model, which names no file or host."""
    record = model.weights.record
    published = model.weights.is_published and model.own is None
    calibration = model.judge.calibration
    return schemas.ModelDescription(
        **model.identity,
        source=model.weights.source,
        fallback_reason=model.weights.public_reason or None,
        classes=len(model.labels),
        input=schemas.ModelInput(**vars(record.geometry)),
        published_accuracy=schemas.PublishedAccuracy(record.top1, record.top5) if published else None,
        licence=record.licence if published else None,
        measured_accuracy=_measured(model),
        heatmap=schemas.HeatmapSize(*model.engine.grid) if model.head else None,
        calibration=schemas.Calibration(**calibration.as_json()) if calibration else None,
    )


def _measured(model: Model) -> dict[str, Any] | None:
    if model.own is not None:
        return vars(model.own.accuracy) if model.own.accuracy else None
    return model.manifest.accuracy if model.manifest else None


def _listed(model: Model, *, is_default: bool) -> schemas.ListedModel:
    record, own = model.weights.record, model.own
    accuracy = None
    if own is not None and own.accuracy is not None:
        accuracy = schemas.ModelAccuracy(**vars(own.accuracy))
    elif own is None and model.weights.is_published and record.top1 is not None:
        accuracy = schemas.ModelAccuracy(record.top1, None, None)
    return schemas.ListedModel(
        name=model.name,
        version=model.version or None,
        default=is_default,
        classes=len(model.labels),
        backbone=own.backbone if own else record.name,
        accuracy=accuracy,
        created=own.created if own else None,
    )


def _model() -> Model:
    """Return the model of `model`. A request that has to wait for it to load counts against the admission limit."""
    classifier, names = service().classifier, MODEL.read()
    if classifier.loaded_model is None:
        admit_body(0)
    return classifier.find_models(names)[0]


def _prefers(mimetype: str) -> bool:
    return flask.request.accept_mimetypes.best_match([JSON, mimetype], default=JSON) == mimetype


def _batch(entries: Sequence[Entry], answers: Mapping[int, Rendered | Problem], model: Model) -> flask.Response:
    """Answer with all results in their order; if the service could not answer any photo, raise the first problem."""
    problems = [answer for answer in answers.values() if isinstance(answer, Problem) and answer.status >= 500]
    if len(problems) == len(entries):
        raise problems[0]
    results = [msgspec.Raw(_result({}, entry, answers[index])) for index, entry in enumerate(entries)]
    return json_response(schemas.Batch(results, schemas.Model(**model.identity)))


def _stream(
    entries: Sequence[Entry], answers: Iterable[tuple[int, Rendered | Problem]], model: Model
) -> flask.Response:
    # With the request's context, so that the request counts as in flight until its last line.
    lines = flask.stream_with_context(_lines(entries, answers, model))
    response = flask.Response(lines, mimetype=NDJSON)
    response.headers["X-Accel-Buffering"] = "no"  # otherwise nginx would hold back the lines until the last one
    return response


def _lines(
    entries: Sequence[Entry], answers: Iterable[tuple[int, Rendered | Problem]], model: Model
) -> Iterator[bytes]:
    """Yield each result as a line with its `index`, as it comes, and the model as the last line."""
    for index, answer in answers:
        yield _result({"index": index}, entries[index], answer) + b"\n"
    yield encode({"model": schemas.Model(**model.identity)}) + b"\n"


def _result(members: dict[str, object], entry: Entry, answer: Rendered | Problem) -> bytes:
    """Encode one photo's result after other members and, for a file of an archive, its name."""
    if entry.name:
        members = members | {"name": entry.name}
    body = encode(schemas.Problem(**answer.as_dict())) if isinstance(answer, Problem) else answer.body
    return with_members_before(members, body)


def _draw_heatmap(answer: Answer) -> tuple[bytes, str]:
    """Draw the answer's only heat map, as PNG or, if the client prefers it, WebP."""
    assert answer.heatmaps is not None
    assert answer.thumbnail is not None
    mimetype = flask.request.accept_mimetypes.best_match(["image/png", "image/webp"], default="image/png")
    kind = mimetype.removeprefix("image/").upper()
    return heatmaps.draw(answer.thumbnail, answer.heatmaps[0], answer.image["crop"], kind), mimetype
