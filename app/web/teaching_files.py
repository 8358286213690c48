"""What leaves and enters a project as a whole: its published version, its bundle, its file."""

from __future__ import annotations

from collections.abc import Iterator

import flask

from ..errors import BadProjectFile, BadRequest, NameTaken, NotFound, NotTaught, ProjectFull, UnknownProject
from ..teaching import transfer
from ..teaching.publishing import chunks_of
from . import teaching_schemas as documents
from .answers import json_response
from .operations import BINARY, operation
from .parameters import refuse_unknown
from .service import service
from .teaching import PROBLEMS, guard, project_response, publisher, teaching
from .uploads import JSON, admit_body, read_file, request_deadline

SQLITE = "application/vnd.sqlite3"
TAR = "application/x-tar"

blueprint = flask.Blueprint("teaching_files", __name__, url_prefix="/api/v1/projects")
blueprint.before_request(guard)


@blueprint.post("/<name>/publish")
@operation(
    {JSON: documents.PublishedVersion},
    problems=(*PROBLEMS, UnknownProject, NotTaught, NameTaken, ProjectFull),
    status=201,
)
def publish(name: str) -> flask.Response:
    """Publish the project's newest head as the next version of the model of its name.

    From about a second later on it answers to `?model=NAME`, as the project's own predictions do.
    """
    refuse_unknown()
    admit_body(0)
    version = publisher().publish(name, request_deadline())
    return json_response(documents.PublishedVersion(name, version), 201)


@blueprint.get("/<name>/bundle")
@operation({TAR: BINARY}, problems=(*PROBLEMS, UnknownProject, NotFound, ProjectFull))
def bundle(name: str) -> flask.Response:
    """Return the published version with its backbone as a bundle, which serves without a network."""
    refuse_unknown()
    admit_body(0)
    return _download(*publisher().bundle(name), TAR)


@blueprint.get("/<name>/file")
@operation({SQLITE: BINARY}, problems=(*PROBLEMS, UnknownProject, ProjectFull))
def project_file(name: str) -> flask.Response:
    """Return the project as one file, which can be opened again."""
    refuse_unknown()
    admit_body(0)
    file, size = transfer.export(teaching().projects, name)
    return _download(f"{name}.topthree.sqlite", chunks_of(file), size, SQLITE)


@blueprint.put("/<name>/file")
@operation(
    {JSON: documents.Project},
    takes="file",
    problems=(*PROBLEMS, BadProjectFile, BadRequest, NameTaken, ProjectFull),
    status=201,
)
def open_project_file(name: str) -> flask.Response:
    """Make a project of such a file, under any name that is free."""
    refuse_unknown()
    settings = service().settings
    data = read_file(settings.max_batch_bytes)
    transfer.adopt(teaching().projects, name, data, max_photo_bytes=settings.max_upload_bytes)
    return project_response(name, 201)


def _download(name: str, chunks: Iterator[bytes], size: int, mimetype: str) -> flask.Response:
    response = flask.Response(chunks, mimetype=mimetype)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.content_length = size
    return response
