"""Headers of every answer, whichever code writes it."""

from __future__ import annotations

import flask

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "geolocation=(), microphone=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Answers of these blueprints are never stored by browsers and proxies, unless a view says otherwise.
_NOT_STORED = ("api", "health", "search", "teaching", "teaching_files")


def add_headers(response: flask.Response) -> flask.Response:
    """Add the headers that every answer has, and forbid storing answers of the API and of probes."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if flask.request.blueprint in _NOT_STORED:
        response.headers["Cache-Control"] = "no-store"
    return response
