"""The Flask application: its service, its hooks in their order, its routes."""

from __future__ import annotations

import os

import flask
from werkzeug.middleware.proxy_fix import ProxyFix

from ..classifier import Classifier
from ..processes.plan import make_plan
from ..processes.readiness import Readiness
from ..queueing.admission import Admission
from ..queueing.cache import ResultCache
from ..search.served import ServedIndex
from ..settings import RESOURCES, Settings
from ..teaching.projects import Projects
from ..teaching.publishing import Publisher
from ..teaching.teaching import Teaching
from ..telemetry.traces import Tracing
from . import (
    access,
    addresses,
    api,
    assets,
    cors,
    headers,
    language,
    observing,
    openapi,
    pages,
    probes,
    problems,
    ratelimits,
    search,
    service,
    teaching,
    teaching_files,
    uploads,
)
from .keys import KeyRing
from .ratecounts import make_limits

# Called for every request before its view, in this order. A problem that one raises is the answer.
BEFORE = (
    observing.begin,  # creates the request's state, which all others use
    observing.check_address,
    probes.count_in_flight,
    access.identify,  # sets the caller, who is counted next
    cors.answer_preflight,  # before a key is required, since a preflight carries none
    ratelimits.count_request,  # before a key is required, so that guessing keys is limited
    access.require_key,
)
# Called with every answer, in this order.
AFTER = (
    headers.add_headers,
    assets.compress_page,
    ratelimits.add_limit_headers,
    cors.allow_origin,
    observing.finish,  # last, since it reports the answer as it is sent
)
# Called when a request has ended, its last byte included.
TEARDOWN = (service.end_request,)

# How much of the deadline the expected wait of an admitted request may take. The rest allows for a wrong estimate.
LATEST_SHARE = 0.7


def build(settings: Settings | None, classifier: Classifier | None) -> flask.Flask:
    """Build the application as `create_app` describes it."""
    settings = settings or Settings.from_environment(os.environ)
    app = flask.Flask(__package__, template_folder=RESOURCES / "templates", static_folder=None)
    # Routes that take photos raise this to their own limit. No other route reads a body.
    app.config["MAX_CONTENT_LENGTH"] = uploads.FRAMING_BYTES
    _keep_json_as_written(app)
    make_service(settings, classifier).attach(app)
    _register_hooks(app)
    problems.register(app)
    for module in (api, search, teaching, teaching_files, openapi, probes, observing, pages):
        app.register_blueprint(module.blueprint)
    if settings.page == "on":
        app.register_blueprint(pages.form_blueprint)
        if settings.teach == "on":
            app.register_blueprint(pages.teach_blueprint)
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        inner = addresses.AddressAlone(app.wsgi_app)
        app.wsgi_app = ProxyFix(inner, count, count, count, x_prefix=count)  # type: ignore[method-assign]
    return app


def make_service(settings: Settings, classifier: Classifier | None = None) -> service.Service:
    """Create everything that the application holds; the model is loaded later.

    Raises KeysError for a file of keys that cannot be used, and IndexProblem for such an index.
    """
    classifier = classifier or Classifier.from_settings(settings)
    teach = _make_teaching(settings, classifier)
    return service.Service(
        settings=settings,
        classifier=classifier,
        admission=_make_admission(settings, classifier),
        results=ResultCache(settings.result_cache_bytes),
        keys=KeyRing(settings.api_keys_file),
        limits=make_limits(settings),
        readiness=Readiness(planned=1),
        tracing=Tracing(settings.traces) if settings.traces else None,
        assets=assets.read_assets(RESOURCES / "static"),
        languages=language.read_languages(),
        teaching=teach,
        publisher=None if teach is None else Publisher(teach, settings),
        index=ServedIndex(settings.index) if settings.index else None,
    )


def _make_teaching(settings: Settings, classifier: Classifier) -> Teaching | None:
    if settings.teach == "off":
        return None
    assert settings.projects is not None  # as the settings are checked
    projects = Projects(settings.projects, settings.teach_max_bytes)
    return Teaching(projects, classifier, max_pixels=settings.max_pixels)


def _make_admission(settings: Settings, classifier: Classifier) -> Admission:
    plan = make_plan(settings)
    return Admission(
        plan.max_requests,
        plan.upload_bytes + uploads.FRAMING_BYTES,  # so that one request of the largest size fits
        max_seconds=LATEST_SHARE * settings.deadline_ms / 1000,
        expected_seconds=lambda: classifier.slots.expected_seconds,
    )


def _register_hooks(app: flask.Flask) -> None:
    for before in BEFORE:
        app.before_request(before)
    for after in reversed(AFTER):  # Flask calls the last one first
        app.after_request(after)
    for teardown in TEARDOWN:
        app.teardown_request(teardown)


def _keep_json_as_written(app: flask.Flask) -> None:
    provider = app.json
    assert isinstance(provider, flask.json.provider.DefaultJSONProvider)
    provider.ensure_ascii = False
    provider.sort_keys = False
    provider.compact = True
