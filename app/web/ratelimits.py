"""How often each key and each address may call, counted by Flask-Limiter in memory or in Redis.

A request is counted, and refused, before its body is parsed. A batch counts once for
each of its photos: they are known only when it has been read, so it is answered, and what it took beyond the limit
is missing afterwards. Where a Redis goes away, each process counts for itself until it is back: callers keep being
served and limited, if less exactly.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import flask

from ..errors import RateLimited
from ..settings import Settings
from .addresses import counted_as

if TYPE_CHECKING:
    from flask_limiter import Limiter, RequestLimit

log = logging.getLogger(__name__)

# A Redis that answers at all does so in a millisecond; nobody waits longer than this for one that does not.
_REDIS_OPTIONS: dict[str, str | int] = {"socket_connect_timeout": 1, "socket_timeout": 1}


def init_app(app: flask.Flask, settings: Settings, is_counted: Callable[[], bool]) -> None:
    """Count the requests that `is_counted` picks, where the settings set a limit.

    Must come after what sets `flask.g.caller`, the name of the key that a request carries, or None.
    """
    if not (settings.rate_limit or settings.rate_limit_per_address):
        return
    # Imported only here: with the client for Redis they would lengthen every start by a fifth.
    from flask_limiter import ApplicationLimit, Limiter
    from flask_limiter.errors import RateLimitExceeded

    in_redis = settings.rate_limit_storage != "memory://"
    wanted = [("caller", caller, settings.rate_limit), ("address", address, settings.rate_limit_per_address)]
    limiter = Limiter(
        caller,
        application_limits=[
            ApplicationLimit(text, key_function=who, scope=scope, exempt_when=lambda: not is_counted())
            for scope, who, text in wanted
            if text
        ],
        strategy="fixed-window",  # the only one that lets a batch take more than is left
        storage_uri=settings.rate_limit_storage,
        storage_options={"wrap_exceptions": True, **(_REDIS_OPTIONS if in_redis else {})},
        in_memory_fallback_enabled=in_redis,
        key_prefix="topthree",
        request_identifier=lambda: "any",  # all routes count together, those that do not exist too
    )
    limiter.logger = logging.getLogger(f"{__name__}.storage")
    limiter.logger.addFilter(_names_no_caller)
    limiter.init_app(app)
    app.extensions["topthree_limiter"] = limiter
    app.register_error_handler(RateLimitExceeded, _refuse)
    app.after_request(_tell_what_is_left)
    if in_redis and not limiter.storage.check():
        log.warning("The Redis of TOPTHREE_RATE_LIMIT_STORAGE does not answer; until it does, each process counts.")


def caller() -> str:
    """Name who is counted: the key that the request carries, else its address."""
    name = flask.g.caller
    return f"key {name}" if name else f"address {address()}"


def address() -> str:
    """Return the address that the request came from, as far as proxies are trusted; of IPv6 the network."""
    return counted_as(flask.request.remote_addr or "local")


def count_photos(photos: int) -> None:
    """Count a batch as so many requests; one of them was counted on arrival. It is never refused half way."""
    if photos > 1 and (limiter := _limiter()):
        for limit in limiter.current_limits:
            _hit(limit, cost=photos - 1)


def count_caller() -> None:
    """Count a request for its key where that was found in the body, after the request had been counted.

    Raises RateLimited where the key has used up its limit.
    """
    if not (limiter := _limiter()):
        return
    from flask_limiter import RequestLimit

    for counted in limiter.current_limits:
        if counted.request_args[-1] == "caller":
            arguments = ["topthree", caller(), "caller"]
            own = RequestLimit(limiter, counted.limit, arguments, breached=False, shared=True)
            if not _hit(own):
                raise _refusal(own)


def _limiter() -> Limiter | None:
    limiter: Limiter | None = flask.current_app.extensions.get("topthree_limiter")
    return limiter


def _hit(limit: RequestLimit, cost: int = 1) -> bool:
    """Count, and tell whether the limit still holds; a storage that has gone is noticed by the next request."""
    from limits.errors import StorageError

    try:
        return limit.limiter.hit(limit.limit, *limit.request_args, cost=cost)
    except StorageError as error:
        log.warning("A request was not counted: %s", error)
        return True


def _left(limit: RequestLimit) -> tuple[int, int]:
    """Return how many requests are left and in how many seconds the count begins anew."""
    from limits.errors import StorageError

    try:
        reset, remaining = limit.window
    except StorageError as error:
        log.warning("What is left of a limit is not known: %s", error)
        return 0, limit.limit.get_expiry()
    return remaining, max(1, math.ceil(reset - time.time()))


def _refusal(limit: RequestLimit) -> RateLimited:
    kind = "key" if limit.request_args[-2].startswith("key ") else "address"
    seconds = _left(limit)[1]
    amount = str(limit.limit).replace(" per 1 ", " per ")
    return RateLimited(f"The limit of {amount} for each {kind} is used up. Try again in {seconds} s.", seconds)


def _refuse(_: Exception) -> flask.typing.ResponseReturnValue:
    """Answer for Flask-Limiter's own exception as for all our failures."""
    limiter = _limiter()
    assert limiter is not None
    limit = limiter.current_limit
    assert limit is not None
    return flask.current_app.handle_user_exception(_refusal(limit))


def _tell_what_is_left(response: flask.Response) -> flask.Response:
    """Write the headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10)."""
    limiter = _limiter()
    assert limiter is not None
    policies, states = [], []
    for limit in limiter.current_limits:
        name = f"{limit.request_args[-1]}-{limit.limit.get_expiry()}s"
        remaining, seconds = _left(limit)
        policies.append(f'"{name}";q={limit.limit.amount};w={limit.limit.get_expiry()}')
        states.append(f'"{name}";r={remaining};t={seconds}')
    if policies:
        response.headers["RateLimit-Policy"] = ", ".join(policies)
        response.headers["RateLimit"] = ", ".join(states)
    return response


def _names_no_caller(record: logging.LogRecord) -> bool:
    """Keep out Flask-Limiter's message of each refusal, which holds an address."""
    return "exceeded at endpoint" not in str(record.msg)
