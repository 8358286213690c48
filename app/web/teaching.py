"""Projects of teaching, under `/api/v1/projects`: classes, photos, the report and predictions of the newest head."""

from __future__ import annotations

import re

import flask
from msgspec import UNSET

from ..errors import (
    BadParameter,
    BadRequest,
    ForeignOrigin,
    NameTaken,
    NoRight,
    NotFound,
    NotTaught,
    Problem,
    ProjectFull,
    ProjectsUnavailable,
    TeachingOff,
    UnknownProject,
)
from ..model.shares import Share
from ..queueing.cache import ResultCache
from ..teaching.contents import MAX_CLASSES, MAX_PHOTOS
from ..teaching.photos import Taken, Upload
from ..teaching.publishing import Publisher
from ..teaching.solving import Report
from ..teaching.teaching import Teaching
from . import teaching_schemas as documents
from .access import check_right
from .answers import current_answerer, json_response, photo_response, write_timing
from .operations import BINARY, operation
from .parameters import PREDICTION, Integer, Text, read_parameters, refuse_unknown
from .ratelimits import count_photos
from .same_origin import require_our_host, require_same_origin
from .schemas import SHA256, Answer
from .schemas import Problem as ProblemDocument
from .service import service
from .uploads import JSON, admit_body, read_any, read_json, read_photo, request_deadline

RIGHT = "teach"
LABEL = Text("label", "Only photos of this class.", example="mug")
OFFSET = Integer("offset", "How many photos to skip.", low=0, high=MAX_PHOTOS, default=0)
LIMIT = Integer("limit", "How many photos to return.", low=1, high=1000, default=100)
AFTER = Integer("after", "The revision that is known already.", low=0, high=10**9 - 1, default=0)
# Every route of projects may answer with these.
PROBLEMS: tuple[type[Problem], ...] = (NoRight, ForeignOrigin, TeachingOff, ProjectsUnavailable)
_OF_PROJECT = (*PROBLEMS, UnknownProject)
_OF_CLASS = (*_OF_PROJECT, NotFound)

blueprint = flask.Blueprint("teaching", __name__, url_prefix="/api/v1/projects")


@blueprint.before_request
def guard() -> None:
    """Require that teaching is on, the right to it, our host, and for a write our origin."""
    if service().teaching is None:
        raise TeachingOff("Teaching is off here. The administrator can turn it on with TOPTHREE_TEACH=on.")
    check_right(RIGHT)
    require_our_host()
    require_same_origin()


def teaching() -> Teaching:
    """Return the teaching of the service; `guard` has made sure that it is on."""
    found = service().teaching
    assert found is not None
    return found


def publisher() -> Publisher:
    """Return the publisher of the service, which has one whenever teaching is on."""
    found = service().publisher
    assert found is not None
    return found


@blueprint.get("")
@operation({JSON: documents.ProjectList}, problems=PROBLEMS)
def projects() -> flask.Response:
    """Return all projects."""
    refuse_unknown()
    ours, listed = teaching(), []
    for name in ours.projects.names():
        try:
            found = ours.describe(name)
        except UnknownProject:  # it was just deleted
            continue
        except (ProjectsUnavailable, ProjectFull) as error:  # the others can be read
            problem = ProblemDocument(**error.as_dict())
            listed.append(documents.ListedProject(name, 0, 0, None, "", problem))
            continue
        published = publisher().published(name, found.facts.published)
        classes = len(found.classes) - 1
        listed.append(documents.ListedProject(name, classes, found.photos, published, found.facts.changed))
    return json_response(documents.ProjectList(listed, ours.projects.bytes(), ours.projects.max_bytes))


@blueprint.put("/<name>")
@operation(
    {JSON: documents.Project},
    takes="json",
    body=documents.ProjectOptions,
    problems=(*PROBLEMS, BadRequest, NameTaken, ProjectFull),
    status=201,
)
def put_project(name: str) -> flask.Response:
    """Make a project.

    One that exists stays, and the answer is 200; without `keep_photos` the photos that it has kept are deleted.
    """
    refuse_unknown()
    is_new = teaching().create(name, keep_photos=read_json(documents.ProjectOptions).keep_photos)
    return project_response(name, 201 if is_new else 200)


@blueprint.get("/<name>")
@operation({JSON: documents.Project}, problems=_OF_PROJECT)
def project(name: str) -> flask.Response:
    """Return a project with its classes."""
    refuse_unknown()
    return project_response(name)


@blueprint.delete("/<name>")
@operation({}, problems=_OF_PROJECT, status=204)
def delete_project(name: str) -> flask.Response:
    """Delete a project with all its photos; the versions that it has published stay."""
    refuse_unknown()
    teaching().delete(name)
    return flask.Response(status=204)


@blueprint.put("/<name>/classes/<path:label>")
@operation(
    {JSON: documents.Project},
    takes="json",
    body=documents.ClassNames,
    problems=(*_OF_PROJECT, BadRequest, NameTaken, ProjectFull),
    status=201,
)
def put_class(name: str, label: str) -> flask.Response:
    """Make a class, or change its names; for a class that exists the answer is 200."""
    refuse_unknown()
    names = read_json(documents.ClassNames)
    is_new = teaching().put_class(name, label, names.label, names.label_zh)
    return project_response(name, 201 if is_new else 200)


@blueprint.delete("/<name>/classes/<path:label>")
@operation({}, problems=(*_OF_CLASS, BadRequest), status=204)
def delete_class(name: str, label: str) -> flask.Response:
    """Delete a class with all its photos."""
    refuse_unknown()
    teaching().delete_class(name, label)
    return flask.Response(status=204)


@blueprint.post("/<name>/classes/<path:label>/photos")
@operation({JSON: documents.AddedPhotos}, takes="any", problems=(*_OF_CLASS, ProjectFull))
def add_photos(name: str, label: str) -> flask.Response:
    """Add photos to a class.

    A file that cannot be used has its problem in its place. A photo that another class has is moved.
    """
    refuse_unknown()
    entries = read_any()
    count_photos(len(entries))
    uploads = [Upload(entry.name, entry.photo) for entry in entries]
    revision, taken = teaching().add(name, label, uploads, request_deadline())
    return json_response(documents.AddedPhotos(revision, [_added(each) for each in taken]))


@blueprint.get("/<name>/photos")
@operation({JSON: documents.ProjectPhotos}, parameters=(LABEL, OFFSET, LIMIT), problems=_OF_CLASS)
def photos(name: str) -> flask.Response:
    """Return the photos of a project, or of one class, the newest first."""
    refuse_unknown()
    revision, total, found = teaching().list_photos(name, LABEL.read(), OFFSET.read(), LIMIT.read())
    listed = [
        documents.ProjectPhoto(each.sha256, each.label, each.file or None, each.near, each.probability)
        for each in found
    ]
    return json_response(documents.ProjectPhotos(revision, total, listed))


@blueprint.patch("/<name>/photos")
@operation({JSON: documents.MovedPhotos}, takes="json", body=documents.MovePhotos, problems=(*_OF_CLASS, BadRequest))
def move_photos(name: str) -> flask.Response:
    """Give photos another class; those that are not there are left out."""
    refuse_unknown()
    asked = read_json(documents.MovePhotos)
    return json_response(documents.MovedPhotos(*teaching().move(name, asked.photos, asked.label)))


@blueprint.delete("/<name>/photos")
@operation(
    {JSON: documents.DeletedPhotos}, takes="json", body=documents.DeletePhotos, problems=(*_OF_PROJECT, BadRequest)
)
def delete_photos(name: str) -> flask.Response:
    """Delete photos; those that are not there are left out."""
    refuse_unknown()
    return json_response(documents.DeletedPhotos(*teaching().remove(name, read_json(documents.DeletePhotos).photos)))


@blueprint.delete("/<name>/photos/<sha256>")
@operation({}, problems=_OF_CLASS, status=204)
def delete_photo(name: str, sha256: str) -> flask.Response:
    """Delete one photo."""
    refuse_unknown()
    if not teaching().remove(name, [_digest(sha256)])[1]:
        raise NotFound("The project has no photo with this digest.")
    return flask.Response(status=204)


@blueprint.get("/<name>/photos/<sha256>/thumbnail")
@operation({"image/jpeg": BINARY}, problems=_OF_CLASS)
def photo_thumbnail(name: str, sha256: str) -> flask.Response:
    """Return a photo, upright, with at most 96 pixels a side."""
    refuse_unknown()
    return flask.Response(teaching().thumbnail(name, _digest(sha256)), mimetype="image/jpeg")


@blueprint.get("/<name>/report")
@operation({JSON: documents.ProjectReport}, parameters=(AFTER,), problems=_OF_PROJECT)
def report(name: str) -> flask.Response:
    """Return what the project's newest head is worth, solving it first if necessary.

    With `after`, the answer is 204 if no revision is newer.
    """
    refuse_unknown()
    after = AFTER.read()
    if after and teaching().revision(name) == after:
        return flask.Response(status=204)
    admit_body(0)
    found = teaching().solve(name, request_deadline()).report
    response = json_response(_report(found))
    response.headers["Server-Timing"] = write_timing({"solve": found.seconds})
    return response


@blueprint.post("/<name>/predict")
@operation(
    {JSON: Answer},
    takes="photo",
    parameters=PREDICTION,
    problems=(*_OF_PROJECT, NotTaught),
)
def predict_by_project(name: str) -> flask.Response:
    """Return the most likely classes of one photo by the project's newest head.

    It is the answer that the published version will give.
    """
    if "model" in flask.request.args:
        raise BadParameter("The parameter 'model' is of no use here: the project's own head answers.")
    parameters = read_parameters()
    photo, answerer = read_photo(), current_answerer()
    answerer.models = [teaching().model(name, answerer.deadline)]
    answerer.note(answerer.models)
    answerer.results = ResultCache(0)  # what is deleted from the project would live on in cached answers
    return photo_response(answerer.predict(photo, parameters))


def project_response(name: str, status: int = 200) -> flask.Response:
    """Answer with a project."""
    ours = teaching()
    found = ours.describe(name)
    document = documents.Project(
        name=name,
        keep_photos=found.facts.keep_photos,
        revision=found.facts.revision,
        classes=[documents.ProjectClass(row.label, row.label_zh, row.photos) for row in found.classes],
        photos=found.photos,
        max_photos=MAX_PHOTOS,
        max_classes=MAX_CLASSES,
        bytes=found.bytes,
        max_bytes=ours.projects.max_bytes,
        backbone=found.backbone,
        stale=found.stale,
        published=publisher().published(name, found.facts.published),
        created=found.facts.created,
        folder=str(ours.projects.root) if service().settings.is_loopback else UNSET,
    )
    return json_response(document, status)


def _digest(text: str) -> str:
    if not re.fullmatch(SHA256, text):
        raise NotFound("A photo's address ends in its SHA-256, 64 hexadecimal digits in lower case.")
    return text


def _added(taken: Taken) -> documents.AddedPhoto:
    if taken.problem is not None:
        return documents.AddedPhoto(taken.file or None, problem=ProblemDocument(**taken.problem.as_dict()))
    assert taken.state is not None
    moved_from = UNSET if taken.moved_from is None else taken.moved_from
    return documents.AddedPhoto(taken.file or None, taken.sha256, taken.state, taken.near, moved_from)


def _report(found: Report) -> documents.ProjectReport:
    classes = [
        documents.ReportedClass(
            each.label,
            each.label_zh,
            each.photos,
            _accuracy(each.accuracy),
            [documents.DoubtedPhoto(**vars(doubted)) for doubted in each.doubted],
        )
        for each in found.classes
    ]
    accuracy = _accuracy(found.accuracy)
    counts = (found.photos, found.groups, found.stale, found.seconds)
    return documents.ProjectReport(found.revision, found.is_ready, accuracy, *counts, classes)


def _accuracy(share: Share | None) -> documents.LeftOutAccuracy | None:
    if share is None:
        return None
    value, low, high = (round(percent / 100, 4) for percent in (share.percent, share.low, share.high))
    return documents.LeftOutAccuracy(value, low, high, share.count)
