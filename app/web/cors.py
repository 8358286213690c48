"""Pages of other origins that may call the API: an exact list, empty unless set (Fetch standard, section 3.2).

Flask-CORS was tried. It leaves out `Vary: Origin` where an origin is refused or only one is listed, so that a cache
may hand the refusal on to those who are welcome, and it takes an IPv6 origin for a regular expression. The rules
that are needed are these few lines.
"""

from __future__ import annotations

import flask

METHODS = "GET, HEAD, POST"
REQUEST_HEADERS = "Accept, Authorization, Content-Type, X-Request-ID, X-Request-Timeout-Ms"
RESPONSE_HEADERS = "RateLimit, RateLimit-Policy, Retry-After, Server-Timing, WWW-Authenticate, X-Request-ID"
# Chromium remembers an answer to a preflight for two hours at most.
MAX_AGE_SECONDS = 7200
API = ("/api/",)


def init_app(app: flask.Flask, origins: tuple[str, ...]) -> None:
    """Let pages of these origins read the API's answers; must come before what asks for keys.

    A preflight carries no key, since browsers send none with it, and is answered here.
    """
    if not origins:
        return

    def answer_preflight() -> flask.Response | None:
        asks = flask.request.method == "OPTIONS" and "Access-Control-Request-Method" in flask.request.headers
        return (
            flask.Response(status=204, mimetype="text/plain") if asks and flask.request.path.startswith(API) else None
        )

    def allow(response: flask.Response) -> flask.Response:
        if not flask.request.path.startswith(API):
            return response
        response.vary.add("Origin")
        if fields := allowing(flask.request.headers.get("Origin"), origins):
            response.headers.update(fields)
            if flask.request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = METHODS
                response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
                response.headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)
        return response

    app.before_request(answer_preflight)
    app.after_request(allow)


def allowing(origin: str | None, origins: tuple[str, ...]) -> dict[str, str]:
    """Return the header fields that let a page of this origin read an answer, none where it is not one of those."""
    if origin is None or origin not in origins:
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": RESPONSE_HEADERS}
