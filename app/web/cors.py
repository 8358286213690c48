"""Pages of other origins that may call the API: an exact list, empty by default (Fetch standard, section 3.2).

Flask-CORS was tried. It leaves out `Vary: Origin` if an origin is rejected or only one is listed, so that a cache may
return the rejection to a listed origin, and it reads an IPv6 origin as a regular expression. The rules that are needed
are these few lines.
"""

from __future__ import annotations

import flask

from .routes import is_api
from .service import service

METHODS = "GET, HEAD, POST"
REQUEST_HEADERS = "Accept, Authorization, Content-Type, X-Request-ID, X-Request-Timeout-Ms"
RESPONSE_HEADERS = "RateLimit, RateLimit-Policy, Retry-After, Server-Timing, WWW-Authenticate, X-Request-ID"
# Chromium caches the answer to a preflight for two hours at most.
MAX_AGE_SECONDS = 7200


def answer_preflight() -> flask.Response | None:
    """Answer a browser's preflight, which carries no key, if the setting names any origins."""
    is_preflight = flask.request.method == "OPTIONS" and "Access-Control-Request-Method" in flask.request.headers
    if is_preflight and is_api() and service().settings.cors_origins:
        return flask.Response(status=204, mimetype="text/plain")
    return None


def allow_origin(response: flask.Response) -> flask.Response:
    """Add the headers that allow a page of a listed origin to read an answer of the API."""
    origins = service().settings.cors_origins
    if not origins or not is_api():
        return response
    response.vary.add("Origin")
    if fields := allowing(flask.request.headers.get("Origin"), origins):
        response.headers.update(fields)
        if flask.request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = METHODS
            response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
            response.headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)
    return response


def allowing(origin: str | None, origins: tuple[str, ...]) -> dict[str, str]:
    """Return the headers that allow a page of this origin to read an answer; no headers if it is not listed."""
    if origin is None or origin not in origins:
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": RESPONSE_HEADERS}
