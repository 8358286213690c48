"""Failures as HTTP answers: problem+json under `/api` and for probes, elsewhere a page in the reader's language."""

from __future__ import annotations

import logging
from typing import NamedTuple

import flask
import msgspec
from werkzeug.exceptions import ClientDisconnected, HTTPException

from ..errors import PROBLEMS, BadRequest, InternalError, MethodNotAllowed, NotFound, Problem, TooLarge
from ..processes.memory import forget_frames
from ..telemetry import logs, metrics
from . import schemas
from .headers import SECURITY_HEADERS
from .rendering import render_page
from .routes import wants_json
from .service import request_state

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
TOO_LARGE = "The request is larger than this address takes."
FAILED = "Something failed here. It is in the server's log; the same request may work again."


class ProblemAnswer(NamedTuple):
    """A complete HTTP answer, for Flask and for any code that answers before it."""

    status: int
    headers: dict[str, str]
    body: bytes


def render_problem(problem: Problem, request_id: str) -> ProblemAnswer:
    """Render a problem as a problem+json document (RFC 9457) with all its headers; needs no current request."""
    document = schemas.Problem(**problem.as_dict(), instance=logs.as_urn(request_id))
    headers = {"Content-Type": PROBLEM_JSON} | headers_of(problem) | {logs.ID_HEADER: request_id} | SECURITY_HEADERS
    return ProblemAnswer(problem.status, headers, msgspec.json.encode(document) + b"\n")


def headers_of(problem: Problem) -> dict[str, str]:
    """Return the headers that belong to a problem, whether it is shown as JSON or as a page."""
    headers = {"Cache-Control": "no-store"}
    if problem.retry_after_seconds is not None:
        headers["Retry-After"] = str(problem.retry_after_seconds)
    if problem.challenge is not None:
        headers["WWW-Authenticate"] = problem.challenge
    if problem.accept_encoding is not None:
        headers["Accept-Encoding"] = problem.accept_encoding  # RFC 9110, section 15.5.16
    return headers


def register(app: flask.Flask) -> None:
    """Render our own problems, the framework's errors and unexpected exceptions as problems."""
    app.register_error_handler(Problem, _answer)
    app.register_error_handler(HTTPException, _answer_framework)


def _answer(problem: Problem) -> flask.Response:
    metrics.count_problem(problem.slug)
    forget_frames(problem)
    if wants_json():
        status, headers, body = render_problem(problem, request_state().id)
        return flask.Response(body, status, headers)
    response = render_page("problem.html", problem=problem)
    response.status_code = problem.status
    response.headers.update(headers_of(problem))
    return response


def _answer_framework(error: HTTPException) -> flask.Response:
    response = _answer(_as_problem(error))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _as_problem(error: HTTPException) -> Problem:
    path, method = flask.request.path, flask.request.method
    if error.code == 404:
        return NotFound(f"Nothing is served at {path}.")
    if error.code == 405:
        answered = set(getattr(error, "valid_methods", None) or ()) - {"HEAD", "OPTIONS"}
        return MethodNotAllowed(f"{method} is not allowed on {path}; use {' or '.join(sorted(answered))}.")
    if error.code == 413:
        return TooLarge(TOO_LARGE)
    if isinstance(error, ClientDisconnected):
        return BadRequest("The body ended early, or its chunks are malformed or too small.")
    if error.code is not None and error.code < 500:
        return BadRequest((error.description or "The request is malformed").rstrip(".") + ".")
    log.error("%s %s failed.", method, path, exc_info=getattr(error, "original_exception", None) or error)
    return InternalError(FAILED)


def problem_class(slug: str) -> type[Problem] | None:
    """Return the class of the problem that `/problems/<slug>` explains, or None."""
    return next((problem for problem in PROBLEMS if problem.slug == slug), None)
