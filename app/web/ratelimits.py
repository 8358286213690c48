"""Limits on how often each key and each address may call.

A request is counted, and rejected if it exceeds a limit, before its body is parsed. A batch counts once for each of
its photos. Their number is known only when the batch has been read, so it is answered, and the requests that it used
beyond the limit are missing afterwards.
"""

from __future__ import annotations

import flask

from ..errors import RateLimited
from .addresses import counted_as
from .ratecounts import CALLER, Count, RateLimits
from .routes import is_guarded
from .service import request_state, service


def count_request() -> None:
    """Count the current request; raises RateLimited if it exceeds a limit."""
    limits, state = service().limits, request_state()
    if limits is None or not is_guarded():
        return
    state.counts = limits.counts_for(state.caller, client_address())
    exceeded = [count for count in state.counts if not limits.hit(count)]
    if exceeded:
        raise _rejection(limits, exceeded[0])


def count_photos(photos: int) -> None:
    """Count a batch as one request for each of its photos, of which one was counted already; never rejects it."""
    if photos > 1 and (limits := service().limits):
        for count in request_state().counts:
            limits.hit(count, cost=photos - 1)


def count_key_of_form() -> None:
    """Count a request for its key if that was found in the body, after the request had been counted for its address.

    Raises RateLimited if the key has used up its limit.
    """
    if not (limits := service().limits):
        return
    for count in limits.counts_for(request_state().caller, client_address()):
        if count.scope == CALLER and not limits.hit(count):
            raise _rejection(limits, count)


def add_limit_headers(response: flask.Response) -> flask.Response:
    """Add the headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10)."""
    limits, counts = service().limits, request_state().counts
    if limits is None or not counts:
        return response
    policies, states = [], []
    for count in counts:
        window = count.limit.get_expiry()
        remaining, seconds = limits.left(count)
        policies.append(f'"{count.scope}-{window}s";q={count.limit.amount};w={window}')
        states.append(f'"{count.scope}-{window}s";r={remaining};t={seconds}')
    response.headers["RateLimit-Policy"] = ", ".join(policies)
    response.headers["RateLimit"] = ", ".join(states)
    return response


def client_address() -> str:
    """Return the client's address as limits count it; for IPv6 it is the network."""
    return counted_as(flask.request.remote_addr or "local")


def _rejection(limits: RateLimits, count: Count) -> RateLimited:
    seconds = limits.left(count)[1]
    amount = str(count.limit).replace(" per 1 ", " per ")
    return RateLimited(f"The limit of {amount} for each {count.kind} is used up. Try again in {seconds} s.", seconds)
