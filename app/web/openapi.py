"""The interface's document, OpenAPI 3.1, built from the code it describes, and the page that shows it.

Problems come from `errors.py`, limits from the settings, and a route that is not served is left out; a test compares
the routes with those of the application.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import flask

from .. import errors
from ..errors import PROBLEMS, Problem
from ..settings import Settings
from ..version import __version__
from .access import open_to_all
from .language import remember_language
from .parameters import NAMES
from .rendering import render_page
from .schemas import PIXEL_PNG, SCHEMAS, Schema, reference
from .uploads import TIMEOUT_HEADER, settings_of_app

blueprint = flask.Blueprint("openapi", __name__)

Problems = tuple[type[Problem], ...]

# Whom the access rules refuse, and who sends too slowly: at every address under /api.
_KEYS = tuple(problem for problem in PROBLEMS if problem.status in (401, 403))
_ALWAYS = tuple(problem for problem in PROBLEMS if problem.status in (408, 414, 429, 431))
_UPLOAD: Problems = (errors.NoPhoto, errors.BadParameter, errors.BadRequest, errors.TooLarge) + (
    errors.UnsupportedContentType,
    errors.InternalError,
    errors.Overloaded,
    errors.ModelUnavailable,
    errors.DeadlineExceeded,
)
_ONE_PHOTO: Problems = (
    *_UPLOAD,
    errors.TooManyPhotos,
    errors.UnsupportedImage,
    errors.BrokenImage,
    errors.TooManyPixels,
    errors.TooCostly,
)
_QUESTION: Problems = (errors.BadParameter, errors.InternalError, errors.Overloaded, errors.ModelUnavailable)
_BINARY: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
_PHOTO: Schema = _BINARY | {"minLength": 1}
_FLAG: Schema = {"type": "integer", "enum": [0, 1], "default": 0}
_TIMING = {"Server-Timing": {"schema": {"type": "string"}, "description": "Where the time went (W3C Server Timing)."}}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds to stay away."}}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "What is asked for (RFC 6750)."}}


@dataclass(frozen=True)
class Operation:
    """One route: what it does, what it takes and gives, and which problems it can meet."""

    method: str
    path: str
    name: str
    summary: str
    answers: dict[str, Schema]
    problems: Problems = ()
    parameters: tuple[str, ...] = ()
    body: str | None = None
    description: str = ""
    headers: Mapping[str, object] = field(default_factory=dict)


PARAMETERS: dict[str, tuple[Schema, str]] = {
    "top": ({"type": "integer", "minimum": 1, "maximum": 1000, "default": 3}, "How many classes."),
    "min_confidence": ({"type": "number", "minimum": 0, "maximum": 1, "default": 0}, "Leave out answers below it."),
    "labels": ({"type": "string", "enum": list(NAMES), "default": "both"}, "In which language classes are named."),
    "heatmap": (_FLAG, "1 adds a heat map to the first ten answers."),
    "normalize": (_FLAG, "1 gives the embedding the length (L2) 1."),
    "class_id": (
        {"type": "integer", "minimum": 0, "maximum": 999},
        "The class to draw; the likeliest where it is not given. The largest is the model's last class.",
    ),
    "side": (
        {"type": "integer", "minimum": 16, "maximum": 1024, "default": 640},
        "The longest side in pixels; a photo is never enlarged.",
    ),
}
_CHOICES = ("top", "min_confidence", "labels", "heatmap")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post",
        "/api/v1/predict",
        "predict",
        "The likeliest classes of one photo",
        {"application/json": reference("Answer")},
        _ONE_PHOTO,
        _CHOICES,
        "photo",
        "The same photo, model and parameters have the same answer, byte for byte.",
        _TIMING,
    ),
    Operation(
        "post",
        "/api/v1/predict/batch",
        "predictBatch",
        "The likeliest classes of many photos",
        {"application/json": reference("Batch"), "application/x-ndjson": {"type": "string"}},
        (*_UPLOAD, errors.UnreadableArchive),
        _CHOICES,
        "photos",
        "Results come in the order of the photos; a bad one carries its problem in its place. Where not one could be "
        "answered for the service's own reasons, the whole request is that problem. As NDJSON each result is a line "
        'with its `index`, sent as soon as it is ready; the last line is `{"model":{…}}`.',
    ),
    Operation(
        "post",
        "/api/v1/embed",
        "embed",
        "The model's embedding of one photo",
        {"application/json": reference("Embedding"), "application/x-npy": _BINARY},
        _ONE_PHOTO,
        ("normalize",),
        "photo",
        "The spatial mean of the last feature map, float32. `.npy` is NumPy's own format, one dimension.",
        _TIMING,
    ),
    Operation(
        "post",
        "/api/v1/heatmap",
        "heatmap",
        "The photo under the heat map of a class, as a picture",
        {"image/png": _BINARY, "image/webp": _BINARY},
        (*_ONE_PHOTO, errors.NoHeatMap),
        ("class_id",),
        "photo",
        headers=_TIMING,
    ),
    Operation(
        "post",
        "/api/v1/thumbnail",
        "thumbnail",
        "The upright photo, small, as a picture",
        {"image/jpeg": _BINARY, "image/webp": _BINARY},
        _ONE_PHOTO,
        ("side",),
        "photo",
        "For photos that a browser cannot show, such as HEIC and TIFF. No model is needed.",
        headers=_TIMING,
    ),
    Operation(
        "get",
        "/api/v1/model",
        "model",
        "The model that answers",
        {"application/json": reference("ModelDescription")},
        _QUESTION,
    ),
    Operation("get", "/api/v1/labels", "labels", "All classes", {"application/json": reference("Labels")}, _QUESTION),
    Operation("get", "/api/v1/openapi.json", "openapi", "This document", {"application/json": {"type": "object"}}),
    Operation("get", "/healthz", "healthz", "Whether the process lives", {"application/json": reference("Alive")}),
    Operation(
        "get",
        "/readyz",
        "readyz",
        "Whether every worker has a model that answers",
        {"application/json": reference("Ready")},
        (errors.ModelUnavailable, errors.Draining),
    ),
    Operation(
        "get",
        "/metrics",
        "metrics",
        "Figures for Prometheus",
        {"text/plain": {"type": "string"}},
        (errors.NotFound,),
        description="Only at an address of its own, where the service was set up with one.",
    ),
)


@blueprint.get("/api/v1/openapi.json")
@open_to_all
def openapi() -> flask.Response:
    """Answer with the document of this interface."""
    response = flask.jsonify(_current_document())
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/docs")
def docs() -> flask.Response:
    """Show the document as a page, for people."""
    return remember_language() or render_page("docs.html", document=_current_document())


def build_document(settings: Settings, served: Iterable[str], root: str = "/") -> dict[str, object]:
    """Build the OpenAPI document of the paths that are `served`, below `root`, with the limits of the settings."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        if operation.path in served:
            paths.setdefault(operation.path, {})[operation.method] = _describe(operation, settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "topthree",
            "version": __version__,
            "summary": "A photo in, the three most likely of 1000 classes out.",
            "description": "v1 only ever gains members: ignore those that you do not know. A query parameter that "
            "does not exist, or is given twice, is refused. Every error is a problem document (RFC 9457): decide by "
            "its `type`, whose last part does not change.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only where the service was set up with keys.",
                }
            },
        },
    }


def _current_document() -> dict[str, object]:
    served = {rule.rule for rule in flask.current_app.url_map.iter_rules()}
    return build_document(settings_of_app(), served, flask.request.script_root or "/")


def _describe(operation: Operation, settings: Settings) -> dict[str, object]:
    is_api = operation.path.startswith("/api/")
    takes_key = is_api and operation.name != "openapi"
    described: dict[str, object] = {"operationId": operation.name, "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    parameters = [_parameter(name) for name in operation.parameters]
    if operation.body:
        described["requestBody"] = _body(operation.body, settings)
        parameters.append(_timeout(settings))
    if parameters:
        described["parameters"] = parameters
    success = {
        "description": operation.summary + ".",
        "headers": operation.headers,
        "content": {mimetype: {"schema": schema} for mimetype, schema in operation.answers.items()},
    }
    problems = operation.problems + (_ALWAYS if is_api else ()) + (_KEYS if takes_key else ())
    described["responses"] = {"200": success} | _refusals(problems)
    described["security"] = _security(settings) if takes_key else [{}]
    return described


def _security(settings: Settings) -> list[dict[str, list[str]]]:
    """Say whether a key is needed, or may be sent."""
    return [{"key": []}] if settings.api_keys_file else [{}, {"key": []}]


def _parameter(name: str) -> dict[str, object]:
    schema, description = PARAMETERS[name]
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _timeout(settings: Settings) -> dict[str, object]:
    return {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": f"How long an answer is of use, in milliseconds; the service's own limit is "
        f"{settings.deadline_ms}. What would come later is not computed.",
        "example": 20_000,
    }


def _body(kind: str, settings: Settings) -> dict[str, object]:
    if kind == "photo":
        description = f"One photo of at most {settings.max_upload_bytes:,} bytes and {settings.max_pixels:,} pixels."
        content: dict[str, object] = {
            "multipart/form-data": {"schema": _form(_PHOTO)},
            "application/json": {"schema": reference("Base64Photo"), "example": {"image": PIXEL_PNG}},
            "application/octet-stream": {"schema": _PHOTO},
            "image/*": {"schema": _PHOTO},
        }
    else:
        description = f"At most {settings.max_batch_items} photos and {settings.max_batch_bytes:,} bytes together."
        files = {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": settings.max_batch_items}
        content = {"multipart/form-data": {"schema": _form(files)}, "application/zip": {"schema": _PHOTO}}
    return {"required": True, "description": description, "content": content}


def _form(files: Schema) -> Schema:
    return {"type": "object", "required": ["file"], "properties": {"file": files}}


def _refusals(problems: Problems) -> dict[str, object]:
    """Describe what is refused, by status, with each problem's type, meaning and an example."""
    refusals: dict[str, object] = {}
    for status in sorted({problem.status for problem in problems}):
        kinds = [problem for problem in problems if problem.status == status]
        sentences = [f"`{kind.slug}`: {(kind.__doc__ or '').splitlines()[0]}" for kind in kinds]
        answer: dict[str, object] = {
            "description": "\n".join(sentences),
            "content": {
                "application/problem+json": {
                    "schema": reference("Problem"),
                    "examples": {kind.slug: {"value": kind(kind.title + ".").as_dict()} for kind in kinds},
                }
            },
        }
        if any(kind.retry_after_seconds is not None for kind in kinds):
            answer["headers"] = _RETRY_AFTER
        elif status in (401, 403):
            answer["headers"] = _CHALLENGE
        refusals[str(status)] = answer
    return refusals
