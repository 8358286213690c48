"""Who may call: API keys for everything under `/api` and for the form, where a file of keys is set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import flask

from ..errors import Forbidden, Unauthorized
from ..settings import Settings
from . import cors, ratelimits
from .keys import KeySet, is_writable_by_others, read_keys
from .uploads import read_form_field, release_place

log = logging.getLogger(__name__)

REALM = "topthree"
FORM_FIELD = "key"
API = ("/api/",)
FORM = "form.classify"
_OPEN = "topthree_open"

View = TypeVar("View", bound=Callable[..., Any])


class KeyRing:
    """The keys of one process: read and checked as a whole, then put to use at once.

    Registered as `app.extensions["topthree_keys"]`. A reload calls `read()` everywhere, and `use()` only where every
    `read()` succeeded.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys = self.read()

    @property
    def is_required(self) -> bool:
        """Tell whether callers need a key."""
        return self._path is not None

    @property
    def current(self) -> KeySet:
        """Return the keys in use."""
        return self._keys

    def read(self) -> KeySet:
        """Read and check the file as it is now; KeysError names the file and the line that is wrong."""
        return KeySet() if self._path is None else read_keys(self._path)

    def use(self, keys: KeySet) -> None:
        """Let these keys in from the next request on, and no others."""
        self._keys = keys


def init_app(app: flask.Flask, settings: Settings) -> None:
    """Ask for keys, count callers and let other origins in, each where its setting says so.

    Raises KeysError for a file of keys that cannot be used.
    """
    app.extensions["topthree_keys"] = KeyRing(settings.api_keys_file)
    app.before_request(_identify)
    cors.init_app(app, settings.cors_origins)
    ratelimits.init_app(app, settings, is_guarded)
    app.before_request(_require_key)


def open_to_all(view: View) -> View:
    """Mark a view under `/api` as one that needs no key: it says nothing that is not public anyway."""
    setattr(view, _OPEN, True)
    return view


def is_guarded() -> bool:
    """Tell whether the current request is one that keys and limits are for."""
    request = flask.request
    return request.method != "OPTIONS" and (request.path.startswith(API) or request.endpoint == FORM)


def require_form_key() -> None:
    """Let in who sends a key with the form, unless the header had one; raises as `/api` does."""
    if keys_of_app().is_required and flask.g.caller is None:
        flask.g.caller = check_key(keys_of_app().current, read_form_field(FORM_FIELD).strip())
        release_place()
        ratelimits.count_caller()


def keys_of_app() -> KeyRing:
    """Return the current application's keys."""
    keys: KeyRing = flask.current_app.extensions["topthree_keys"]
    return keys


def announce(settings: Settings) -> None:
    """Log, once for all processes, who may call; raises KeysError for a file of keys that cannot be used."""
    path = settings.api_keys_file
    if path is not None:
        keys = read_keys(path).keys
        enabled = sum(key.enabled for key in keys)
        log.info("Keys: %d of %d in %s are enabled.", enabled, len(keys), path)
        if not enabled:
            log.warning("No key in %s is enabled: nobody can use the API.", path)
        if is_writable_by_others(path):
            log.warning("Others than its owner may write %s, and so let themselves in: chmod go-w %s", path, path)
    if not settings.is_loopback:
        _announce_open_address(settings)
    limited = settings.rate_limit or settings.rate_limit_per_address
    if limited and settings.rate_limit_storage == "memory://":
        log.info("Rate limits are counted in memory, by each of %d processes for itself.", settings.workers)


def _announce_open_address(settings: Settings) -> None:
    if settings.api_keys_file is None:
        log.warning(
            "Listening on %s: anyone who can reach this address can use the service. "
            "TOPTHREE_API_KEYS_FILE lets only holders of keys in.",
            settings.host,
        )
    else:
        log.info(
            "Listening on %s: keys and photos cross the network readable, unless a proxy adds TLS.", settings.host
        )


def _identify() -> None:
    """Note whose key the request carries; who may not come in is told so later, after having been counted."""
    key = keys_of_app().current.find(_bearer_token())
    flask.g.caller = key.name if key and key.enabled else None


def _require_key() -> None:
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    if not keys_of_app().is_required or not is_guarded() or hasattr(view, _OPEN):
        return
    token = _bearer_token()
    # The form may carry its key as a field, which only its own view can read, within its limits.
    if token or flask.request.endpoint != FORM:
        check_key(keys_of_app().current, token)


def _bearer_token() -> str:
    """Return the request's bearer token; never one in the address, which ends up in logs."""
    return token_in(flask.request.headers.get("Authorization", ""))


def token_in(authorization: str) -> str:
    """Return the bearer token in an `Authorization` header (RFC 6750, section 2.1), empty if there is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def check_key(keys: KeySet, token: str) -> str:
    """Return the name of the key, or raise Unauthorized or Forbidden with a challenge (RFC 6750, section 3)."""
    challenge = f'Bearer realm="{REALM}"'
    if not token:
        raise Unauthorized("This needs a key, in the header 'Authorization: Bearer KEY'.", challenge)
    key = keys.find(token)
    if key is None:
        raise Unauthorized(
            "This key is not known here.",
            f'{challenge}, error="invalid_token", error_description="The key is not known"',
        )
    if not key.enabled:
        raise Forbidden(
            "This key is disabled. Who runs this service can enable it, or give you another.",
            f'{challenge}, error="invalid_token", error_description="The key is disabled"',
        )
    return key.name
