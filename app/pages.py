"""The page for people: a form, three names, and errors that say what to do. Needs no JavaScript."""

from __future__ import annotations

import base64

import flask

from .api import current_classifier
from .errors import NotFound
from .images import decode
from .problems import problem_class
from .translations import LANGUAGES, render_page
from .uploads import read_photo, settings_of_app

blueprint = flask.Blueprint("pages", __name__)

THUMBNAIL_SIDE = 640
COOKIE_SECONDS = 365 * 24 * 3600


@blueprint.get("/")
def index() -> flask.Response:
    """Show the form; `?lang=` chooses the language and is remembered in a cookie."""
    language = flask.request.args.get("lang")
    if language in LANGUAGES:
        response = flask.make_response(flask.redirect("./", code=303))
        response.set_cookie("lang", language, max_age=COOKIE_SECONDS, samesite="Lax", httponly=True)
        return response
    return _page("index.html")


@blueprint.post("/")
def classify() -> flask.Response:
    """Show the three most likely classes of the photo in the form field `file`."""
    photo = decode(read_photo(), max_pixels=settings_of_app().max_pixels)
    predictions = current_classifier().predict([photo])[0]
    thumbnail = base64.b64encode(photo.thumbnail(THUMBNAIL_SIDE)).decode("ascii")
    return _page("result.html", photo=photo, predictions=predictions, thumbnail=thumbnail)


@blueprint.get("/problems/<slug>")
def problem_page(slug: str) -> flask.Response:
    """Explain the problem that an API answer's `type` names."""
    problem = problem_class(slug)
    if problem is None:
        raise NotFound(f"There is no problem named {slug}.")
    return _page("problem.html", problem=problem(""))


@blueprint.get("/robots.txt")
def robots() -> flask.Response:
    """Keep crawlers away from everything but the page."""
    return flask.current_app.send_static_file("robots.txt")


@blueprint.get("/favicon.ico")
def favicon() -> flask.Response:
    """Serve the icon at the path that browsers guess."""
    return flask.current_app.send_static_file("favicon.ico")


def _page(template: str, **values: object) -> flask.Response:
    response = render_page(template, **values)
    response.headers["Cache-Control"] = "no-store" if values else "no-cache"
    return response
