"""The OpenAPI 3.1 document of the API, built from the code that it describes, and the page that shows it.

Routes come from the application, with what their views declare; documents from `schemas.py`, problems from
`errors.py`, and limits from the settings.
"""

from __future__ import annotations

import inspect
import re

import flask
import msgspec
from msgspec import Struct

from .. import errors
from ..errors import PROBLEMS, Problem
from ..model.own_format import NAME
from ..settings import Settings
from ..version import __version__
from . import schemas, teaching_schemas
from .answers import json_response
from .operations import BINARY, Operation, Parameter, operation, operations_of
from .rendering import remember_language, render_page
from .routes import API_PREFIX
from .schemas import PIXEL_PNG, SCHEMAS, SHA256, Schema, reference
from .search import ROW
from .service import service
from .teaching import AFTER
from .uploads import JSON, TIMEOUT_HEADER

blueprint = flask.Blueprint("openapi", __name__)

Problems = tuple[type[Problem], ...]

# Any address under /api may answer with these: for keys, for slow or oversized requests, and for rate limits.
_KEYS: tuple[type[Problem], ...] = (errors.Unauthorized, errors.Forbidden)
_ALWAYS = tuple(problem for problem in PROBLEMS if problem.status in (408, 414, 429, 431))
_MODEL: Problems = (errors.BadParameter, errors.InternalError, errors.Overloaded, errors.ModelUnavailable)
_BODY = (errors.NoPhoto, errors.BadRequest, errors.TooLarge, errors.UnsupportedContentType, errors.DeadlineExceeded)
_IMAGE = (errors.UnsupportedImage, errors.BrokenImage, errors.TooManyPixels, errors.TooCostly)
_TAKEN: dict[str, Problems] = {
    "photo": (*_MODEL, *_BODY, *_IMAGE, errors.TooManyPhotos),
    "any": (*_MODEL, *_BODY, *_IMAGE, errors.UnreadableArchive),
    "file": (*_MODEL, errors.TooLarge, errors.UnsupportedContentType),
    "json": (*_MODEL, errors.TooLarge),
    "photos": (*_MODEL, *_BODY, errors.UnreadableArchive),
    "": _MODEL,
}

_PHOTO: Schema = BINARY | {"minLength": 1}
# The parts of paths.
PLACES: dict[str, tuple[Schema, str]] = {
    "name": ({"type": "string", "pattern": f"^{NAME.pattern}$"}, "The name of the project."),
    "label": ({"type": "string", "minLength": 1}, "The name of the class, or `~none`."),
    "sha256": ({"type": "string", "pattern": SHA256}, "The SHA-256 of the photo's file."),
    "row": ({"type": "string", "pattern": f"^{ROW.pattern}$"}, "The row of the photo in the index."),
}
# A part of a path as Flask's rules and as OpenAPI's paths have it.
_PLACE = re.compile(r"<(?:path:)?(\w+)>")
_PLACES = re.compile(r"{(\w+)}")


def _header(name: str, description: str, **schema: object) -> Schema:
    return {name: {"schema": schema, "description": description}}


_TIMING = _header("Server-Timing", "Where the time went (W3C Server Timing).", type="string")
_RETRY_AFTER = _header("Retry-After", "Seconds to wait before the next request.", type="integer", minimum=0)
_CHALLENGE = _header("WWW-Authenticate", "What authentication is needed (RFC 6750).", type="string")


@blueprint.get("/api/v1/openapi.json")
@operation({JSON: {"type": "object"}}, needs_key=False)
def openapi() -> flask.Response:
    """Return the OpenAPI document."""
    response = json_response(_current_document())
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/docs")
def docs() -> flask.Response:
    """Show the document as a page."""
    return remember_language() or render_page("docs.html", document=_current_document())


def build_document(app: flask.Flask, settings: Settings, root: str = "/") -> Schema:
    """Build the OpenAPI document of an application's routes, below `root`, with the limits of the settings."""
    paths: dict[str, dict[str, Schema]] = {}
    for rule, method, endpoint, declared in operations_of(app):
        path = _PLACE.sub(r"{\1}", rule)
        text = inspect.getdoc(app.view_functions[endpoint]) or ""
        paths.setdefault(path, {})[method] = _describe(declared, endpoint, path, text, settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "topthree",
            "version": __version__,
            "summary": "A photo in, the three most likely of 1000 classes out.",
            "description": "v1 only ever gains members: ignore members that you do not know. A query parameter that "
            "does not exist, or is given twice, is rejected. Every error is a problem document (RFC 9457): decide by "
            "its `type`, whose last part does not change.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS | teaching_schemas.SCHEMAS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only if the service was configured with keys.",
                }
            },
        },
    }


def _current_document() -> Schema:
    app: flask.Flask = flask.current_app
    return build_document(app, service().settings, flask.request.script_root or "/")


def _describe(declared: Operation, endpoint: str, path: str, text: str, settings: Settings) -> Schema:
    is_api = path.startswith(API_PREFIX)
    summary, _, description = text.partition("\n\n")
    summary = summary.rstrip(".")
    described: Schema = {"operationId": _camel_case(endpoint.rpartition(".")[2]), "summary": summary}
    if description:
        described["description"] = " ".join(description.split())
    parameters = [_path_parameter(name) for name in _PLACES.findall(path)]
    parameters += [_parameter(each) for each in declared.parameters]
    if declared.body is not None:
        content = {JSON: {"schema": reference(declared.body)}}
        described["requestBody"] = {"description": "A JSON document.", "content": content}
    elif declared.takes:
        described["requestBody"] = _body(declared.takes, settings)
        parameters.append(_timeout(settings))
    if parameters:
        described["parameters"] = parameters
    takes_key = is_api and declared.needs_key
    rejections = _rejections(_problems(declared, is_api, takes_key))
    described["responses"] = _successes(declared, summary) | rejections
    described["security"] = _security(settings) if takes_key else [{}]
    return described


def _successes(declared: Operation, summary: str) -> Schema:
    """Describe the answers without a problem; what was made is 201, and 200 if it was there already."""
    success: Schema = {
        "description": summary + ".",
        "headers": _TIMING if declared.takes == "photo" else {},
        "content": {mimetype: {"schema": _schema(answer)} for mimetype, answer in declared.answers.items()},
    }
    found = {str(declared.status): success}
    if declared.status == 201 and declared.takes == "json":
        found["200"] = success
    if AFTER in declared.parameters:
        found["204"] = {"description": "Nothing is newer.", "content": {}}
    return dict(found)


def _problems(declared: Operation, is_api: bool, takes_key: bool) -> Problems:
    common = (_ALWAYS if is_api else ()) + ((*_KEYS, *_TAKEN[declared.takes]) if takes_key else ())
    return declared.problems + common


def _camel_case(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _schema(answer: Schema | type[Struct]) -> Schema:
    return answer if isinstance(answer, dict) else reference(answer)


def _security(settings: Settings) -> list[dict[str, list[str]]]:
    """Return whether a key is required or may be sent."""
    return [{"key": []}] if settings.api_keys_file else [{}, {"key": []}]


def _parameter(given: Parameter) -> Schema:
    facts = {"schema": given.schema, "description": given.description}
    return {"name": given.name, "in": "query", "required": False} | facts


def _path_parameter(name: str) -> Schema:
    schema, description = PLACES[name]
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _timeout(settings: Settings) -> Schema:
    return {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": f"Give up after this many milliseconds; the service's own limit is {settings.deadline_ms}. "
        "An answer that would come later is not computed.",
        "example": 20_000,
    }


def _body(kind: str, settings: Settings) -> Schema:
    if kind == "photo":
        description = f"One photo of at most {settings.max_upload_bytes:,} bytes and {settings.max_pixels:,} pixels."
        content: Schema = {
            "multipart/form-data": {"schema": _form(_PHOTO)},
            "application/json": {"schema": reference(schemas.Base64Photo), "example": {"image": PIXEL_PNG}},
            "application/octet-stream": {"schema": _PHOTO},
            "image/*": {"schema": _PHOTO},
        }
    elif kind == "file":
        description = f"A project's file of at most {settings.max_batch_bytes:,} bytes."
        content = {"application/octet-stream": {"schema": BINARY}}
    else:
        description = f"At most {settings.max_batch_items} photos and {settings.max_batch_bytes:,} bytes together."
        files = {"type": "array", "items": BINARY, "minItems": 1, "maxItems": settings.max_batch_items}
        content = {"multipart/form-data": {"schema": _form(files)}, "application/zip": {"schema": _PHOTO}}
        if kind == "any":
            content |= {JSON: {"schema": reference(schemas.Base64Photo)}, "image/*": {"schema": _PHOTO}}
    return {"required": True, "description": description, "content": content}


def _form(files: Schema) -> Schema:
    return {"type": "object", "required": ["file"], "properties": {"file": files}}


def _rejections(problems: Problems) -> Schema:
    """Describe problems by status, with the type, the meaning and an example of each."""
    rejections: Schema = {}
    for status in sorted({problem.status for problem in problems}):
        kinds = [problem for problem in problems if problem.status == status]
        sentences = [f"`{kind.slug}`: {(kind.__doc__ or '').splitlines()[0]}" for kind in kinds]
        answer: Schema = {
            "description": "\n".join(sentences),
            "content": {
                "application/problem+json": {
                    "schema": reference(schemas.Problem),
                    "examples": {kind.slug: {"value": _example(kind)} for kind in kinds},
                }
            },
        }
        if any(kind.retry_after_seconds is not None for kind in kinds):
            answer["headers"] = _RETRY_AFTER
        elif status in (401, 403):
            answer["headers"] = _CHALLENGE
        rejections[str(status)] = answer
    return rejections


def _example(kind: type[Problem]) -> object:
    return msgspec.to_builtins(schemas.Problem(**kind(kind.title + ".").as_dict()))
