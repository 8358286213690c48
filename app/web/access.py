"""API keys: required for everything under `/api` and for the form if a file of keys is configured."""

from __future__ import annotations

import logging

import flask

from ..errors import Forbidden, NoRight, Unauthorized
from ..processes.plan import make_plan
from ..settings import Settings
from .keys import KeySet, is_writable_by_others, read_keys
from .operations import operation_of
from .ratelimits import count_key_of_form
from .routes import FORM_ENDPOINT, is_guarded
from .service import request_state, service
from .uploads import read_form_field, release_place

log = logging.getLogger(__name__)

REALM = "topthree"
FORM_FIELD = "key"


def identify() -> None:
    """Set the caller from the bearer token. An invalid key is rejected later, after the request has been counted."""
    key = service().keys.current.find(_bearer_token())
    request_state().caller = key.name if key and key.enabled else None


def require_key() -> None:
    """Raise Unauthorized or Forbidden if the current request needs a key and its header has no valid one.

    The page's form may carry its key as a field instead, which only its own view can read, within its limits.
    """
    declared = operation_of(flask.current_app.view_functions.get(flask.request.endpoint or ""))
    is_public = declared is not None and not declared.needs_key
    if not service().keys.is_required or not is_guarded() or is_public:
        return
    token = _bearer_token()
    if token or flask.request.endpoint != FORM_ENDPOINT:
        check_key(service().keys.current, token)


def require_form_key() -> None:
    """Authenticate by the form's field `key` if there was no bearer token; raises Unauthorized or Forbidden."""
    state = request_state()
    if service().keys.is_required and state.caller is None:
        state.caller = check_key(service().keys.current, read_form_field(FORM_FIELD).strip())
        release_place()
        count_key_of_form()


def check_right(right: str) -> None:
    """Raise NoRight if keys are required and that of the current request does not have a right."""
    keys, caller = service().keys, request_state().caller
    key = keys.current.named(caller) if caller else None
    if keys.is_required and (key is None or right not in key.rights):
        raise NoRight(
            f"This key does not have the right to {right}. The administrator can make one that does, with "
            f"'topthree keys new NAME --may {right}'.",
            challenge=f'Bearer realm="{REALM}", error="insufficient_scope"',
        )


def announce(settings: Settings) -> None:
    """Log once, for all processes, which clients may use the service; raises KeysError for an unusable file."""
    path = settings.api_keys_file
    if path is not None:
        keys = read_keys(path).keys
        enabled = sum(key.enabled for key in keys)
        log.info("Keys: %d of %d in %s are enabled.", enabled, len(keys), path)
        if not enabled:
            log.warning("No key in %s is enabled: no client can use the API.", path)
        if is_writable_by_others(path):
            log.warning("%s is writable by other users, who could add their own keys. Run: chmod go-w %s", path, path)
    if not settings.is_loopback:
        _announce_open_address(settings)
    limited = settings.rate_limit or settings.rate_limit_per_address
    if limited and settings.rate_limit_storage == "memory://":
        log.info("Rate limits are counted in memory, by each of %d processes on its own.", make_plan(settings).workers)


def _announce_open_address(settings: Settings) -> None:
    if settings.api_keys_file is None:
        log.warning(
            "Listening on %s: anyone who can reach this address can use the service. "
            "With TOPTHREE_API_KEYS_FILE it requires an API key.",
            settings.host,
        )
    else:
        log.info("Listening on %s: keys and photos are sent unencrypted, unless a proxy adds TLS.", settings.host)


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
        raise Unauthorized("This needs a key, in the header 'Authorization: Bearer KEY'.", challenge=challenge)
    key = keys.find(token)
    if key is None:
        raise Unauthorized(
            "This key is not known here.",
            challenge=f'{challenge}, error="invalid_token", error_description="The key is not known"',
        )
    if not key.enabled:
        raise Forbidden(
            "This key is disabled. The administrator can enable it, or give you another.",
            challenge=f'{challenge}, error="invalid_token", error_description="The key is disabled"',
        )
    return key.name
