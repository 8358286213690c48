"""What a request's address says about it."""

from __future__ import annotations

import flask

API_PREFIX = "/api/"
FORM_ENDPOINT = "form.classify"
# Problems at these are shown as JSON, at all others as a page.
_JSON_PREFIXES = ("/api", "/healthz", "/readyz", "/metrics")


def is_api() -> bool:
    """Return whether the current request is one to the API."""
    return flask.request.path.startswith(API_PREFIX)


def is_guarded() -> bool:
    """Return whether API keys and rate limits apply to the current request."""
    return flask.request.method != "OPTIONS" and (is_api() or flask.request.endpoint == FORM_ENDPOINT)


def wants_json() -> bool:
    """Return whether a problem of the current request is shown as JSON."""
    return flask.request.path.startswith(_JSON_PREFIXES)
