"""The page for people: a form, three names, and errors that say what to do. Needs no JavaScript."""

from __future__ import annotations

import base64

import flask

from ..errors import NotFound
from ..model.verdicts import Outputs
from ..photos.heatmaps import encode
from .access import require_form_key
from .answers import current_answerer
from .assets import asset_response
from .problems import problem_class
from .rendering import remember_language, render_page, write_verdict
from .service import service
from .uploads import FORM, read_form_field, read_photo

blueprint = flask.Blueprint("pages", __name__)
# What TOPTHREE_PAGE=off takes away; the rest explains problems to which the API's answers refer.
form_blueprint = flask.Blueprint("form", __name__)
# Served with TOPTHREE_TEACH=on.
teach_blueprint = flask.Blueprint("teach", __name__)

THUMBNAIL_SIDE = 640


@form_blueprint.get("/")
def index() -> flask.Response:
    """Show the form; `?lang=` chooses the language and is remembered in a cookie."""
    return remember_language() or _page("index.html")


@form_blueprint.post("/")
def classify() -> flask.Response:
    """Show the three most likely classes of the photo in the form field `file`."""
    require_form_key()
    answerer = current_answerer(_chosen_model())
    answer = answerer.classify(read_photo(), Outputs(thumbnail_side=THUMBNAIL_SIDE))
    assert answer.thumbnail is not None
    thumbnail = base64.b64encode(encode(answer.thumbnail, "JPEG")).decode("ascii")
    values = {"photo": answer.image, "predictions": answer.predictions, "thumbnail": thumbnail}
    return _page("result.html", model=answerer.load_model(), verdict=write_verdict(answer), **values)


@teach_blueprint.get("/teach")
def teach() -> flask.Response:
    """Show the page of teaching; its script asks the API for the projects, and `?project=` names one of them."""
    return remember_language() or _page("teach.html")


@blueprint.get("/problems/<slug>")
def problem_page(slug: str) -> flask.Response:
    """Explain the problem that an API answer's `type` names."""
    problem = problem_class(slug)
    if problem is None:
        raise NotFound(f"There is no problem named {slug}.")
    return remember_language() or _page("problem.html", problem=problem(""))


@blueprint.get("/static/<digest>/<path:name>")
def static_file(digest: str, name: str) -> flask.Response:
    """Serve a static file by its versioned address; an outdated version gets the current file, not to be kept."""
    return _static(name, is_current=digest == service().assets.digest)


@blueprint.get("/robots.txt")
def robots() -> flask.Response:
    """Keep crawlers away from everything but the page."""
    return _static("robots.txt")


@blueprint.get("/favicon.ico")
def favicon() -> flask.Response:
    """Serve the icon at the path that browsers guess."""
    return _static("favicon.ico")


def _chosen_model() -> tuple[str, ...]:
    """Return the model of the form field `model`, which a page with several models has."""
    name = read_form_field("model") if flask.request.mimetype == FORM else ""
    return (name,) if name else ()


def _static(name: str, *, is_current: bool = False) -> flask.Response:
    asset = service().assets.get(name)
    if asset is None:
        raise NotFound(f"There is no file named {name}.")
    return asset_response(asset, is_current=is_current)


def _page(template: str, **values: object) -> flask.Response:
    response = render_page(template, **values)
    response.headers["Cache-Control"] = "no-store" if values else "no-cache"
    return response
