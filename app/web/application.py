"""The Flask application: its parts put together."""

from __future__ import annotations

import os

import flask
from werkzeug.middleware.proxy_fix import ProxyFix

from ..classifier import Classifier
from ..processes.plan import make_plan
from ..queueing.admission import Admission
from ..queueing.cache import ResultCache
from ..settings import RESOURCES, Settings
from . import access, addresses, api, observing, openapi, pages, probes, problems, uploads
from .headers import SECURITY_HEADERS

# How much of the deadline the expected wait of an admitted request may take; the rest is for errors of the estimate.
LATEST_SHARE = 0.7


def build(settings: Settings | None, classifier: Classifier | None) -> flask.Flask:
    """Build the application as `create_app` describes it."""
    settings = settings or Settings.from_environment(os.environ)
    app = flask.Flask(__package__, template_folder=RESOURCES / "templates", static_folder=None)
    app.static_folder = str(
        RESOURCES / "static"
    )  # set later, so that Flask adds no route: pages.py serves hashed names
    app.config["TOPTHREE"] = settings
    # The routes that take photos raise this to their own limit; no other has a body to read.
    app.config["MAX_CONTENT_LENGTH"] = uploads.FRAMING_BYTES
    _keep_json_as_written(app)
    classifier = classifier or Classifier.from_settings(settings)
    app.extensions["topthree"] = classifier
    app.extensions["topthree_admission"] = _make_admission(settings, classifier)
    app.extensions["topthree_results"] = ResultCache(settings.result_cache_bytes)
    problems.init_app(app)
    observing.init_app(app, settings)
    probes.init_app(app)
    app.before_request(uploads.note_arrival)
    app.teardown_request(uploads.leave)
    access.init_app(app, settings)
    for module in (api, probes, observing, openapi, pages):
        app.register_blueprint(module.blueprint)
    if settings.page == "on":
        app.register_blueprint(pages.form_blueprint)
    app.after_request(_add_security_headers)
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        inner = addresses.AddressAlone(app.wsgi_app)
        app.wsgi_app = ProxyFix(inner, count, count, count, x_prefix=count)  # type: ignore[method-assign]
    return app


def _make_admission(settings: Settings, classifier: Classifier) -> Admission:
    return Admission(
        make_plan(settings).most_requests,
        settings.max_waiting_bytes + uploads.FRAMING_BYTES,  # so that one request of the largest size fits
        most_seconds=LATEST_SHARE * settings.deadline_ms / 1000,
        expected_seconds=lambda: classifier.slots.expected_seconds,
    )


def _keep_json_as_written(app: flask.Flask) -> None:
    provider = app.json
    assert isinstance(provider, flask.json.provider.DefaultJSONProvider)
    provider.ensure_ascii = False
    provider.sort_keys = False
    provider.compact = True


def _add_security_headers(response: flask.Response) -> flask.Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
