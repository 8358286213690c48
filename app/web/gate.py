"""Early rejection: what is decided by a request's parsed head, before any of its body is taken.

The gate knows neither the server nor raw HTTP. A server calls `Gate.refuse` for each head and, if nothing is wrong,
`Gate.take_place` before it takes the body. A refusal under `/api` is a whole answer; elsewhere it is a page, for which
Flask gets the request without its body, and the reason in the WSGI environment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import flask
from werkzeug.exceptions import HTTPException

from ..errors import Forbidden, Overloaded, Problem, TooLarge, Unauthorized
from ..telemetry import logs
from .access import check_key, token_in
from .cors import allowing
from .observing import UNMATCHED, report_refused
from .operations import operation_of
from .problems import ProblemAnswer, render_problem
from .routes import API_PREFIX, FORM_ENDPOINT
from .service import service_of
from .uploads import BODY_LIMITS, FORM_LIMIT, FRAMING_BYTES, BodyLimit

MAX_LARGE_FORMS = 2
# Finding a path's route takes some microseconds of the loop, and each head asks for it several times.
_MAX_KNOWN_PATHS = 1024


@dataclass(frozen=True)
class Head:
    """What a request says before its body.

    The path is decoded and begins with one slash. Headers have their WSGI names, without `HTTP_`. The body's length is
    None if it comes in chunks. `port` is the one that the request arrived at, in decimal.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body_bytes: int | None
    port: str = ""

    @property
    def is_api(self) -> bool:
        """Return whether the path is one of the API's."""
        return self.path.startswith(API_PREFIX)

    @property
    def is_large(self) -> bool:
        """Return whether the body is larger than a route without photos takes, or of unknown length."""
        return self.body_bytes is None or self.body_bytes > FRAMING_BYTES


@dataclass(frozen=True)
class Refusal:
    """Why a body is not taken, and the answer; without an answer, Flask answers and gets no body."""

    problem: Problem
    answer: ProblemAnswer | None


class Gate:
    """Early rejection for one application."""

    def __init__(self, app: flask.Flask) -> None:
        found = service_of(app)
        self._settings, self._admission, self._keys = found.settings, found.admission, found.keys
        self._limits, self._routes = body_limits(app), app.url_map.bind("")
        self._find_rule = functools.lru_cache(_MAX_KNOWN_PATHS)(self._match)
        self._places: set[object] = set()
        self._metrics_port = (self._settings.metrics_address or "").rpartition(":")[2] or None
        self._counts_requests = found.limits is not None
        # Only Flask knows the address for the log, behind proxies, and makes traces.
        self._may_answer = self._settings.log_addresses == "off" and not self._settings.traces

    def refuse(self, head: Head) -> Refusal | None:
        """Refuse a request that is over capacity, too large, or large and without the key or place that it needs."""
        problem = self._full(head) or self._too_large(head) or self._without_key(head) or self._without_place(head)
        return self._refusal(problem, head) if problem else None

    def refuse_size(self, head: Head) -> Refusal | None:
        """Refuse a body that has become too large while it came in chunks."""
        problem = self._too_large(head)
        return self._refusal(problem, head) if problem else None

    def take_place(self, head: Head) -> Callable[[], None]:
        """Take one of the few places for large forms, if the request needs one.

        Returns a function that frees the place; any thread may call it, more than once.
        """
        if not self._needs_place(head):
            return lambda: None
        place = object()
        self._places.add(place)
        return lambda: self._places.discard(place)

    def answer(self, problem: Problem, head: Head | None, *, bytes_in: int = 0) -> ProblemAnswer:
        """Render a problem for a request that Flask does not get; it is counted and logged as all are."""
        headers = head.headers if head else {}
        request_id = logs.choose_request_id(headers.get("X_REQUEST_ID"))
        status, fields, body = render_problem(problem, request_id)
        if self._settings.cors_origins:
            fields |= {"Vary": "Origin"} | allowing(headers.get("ORIGIN"), self._settings.cors_origins)
        route = (head and self._find_rule(head.method, head.path)) or UNMATCHED
        method = head.method if head else "other"
        report_refused(problem, request_id, method=method, route=route, bytes_in=bytes_in, bytes_out=len(body))
        return ProblemAnswer(status, fields, body)

    def _refusal(self, problem: Problem, head: Head) -> Refusal:
        # Only Flask counts requests for their address, and so limits how many keys can be guessed.
        is_counted = self._counts_requests and isinstance(problem, (Unauthorized, Forbidden))
        if self._is_photo(head) and self._may_answer and not is_counted:
            return Refusal(problem, self.answer(problem, head, bytes_in=head.body_bytes or 0))
        return Refusal(problem, None)

    def _match(self, method: str, path: str) -> str | None:
        """Return the rule of the route that answers a request, as Flask finds it; None if there is no such route."""
        try:
            rule, _ = self._routes.match(path, method, return_rule=True)
        except HTTPException:
            return None
        return rule.rule

    def _limit(self, head: Head) -> BodyLimit | None:
        """Return the limit of a body; None if its route takes no more than a few lines."""
        rule = None if head.port == self._metrics_port else self._find_rule(head.method, head.path)
        return None if rule is None else self._limits.get((head.method, rule))

    def _is_photo(self, head: Head) -> bool:
        return head.is_api and self._limit(head) is not None

    def _full(self, head: Head) -> Problem | None:
        return self._admission.refusal_if_full() if self._is_photo(head) else None

    def _too_large(self, head: Head) -> Problem | None:
        limit = self._limit(head)
        if limit is None:
            return TooLarge("The request is larger than this address takes.") if head.is_large else None
        return limit.problem(self._settings) if (head.body_bytes or 0) > limit.body_bytes(self._settings) else None

    def _without_key(self, head: Head) -> Problem | None:
        """Require the key of a large body in its header; a form may hold it as a field, unless it comes in chunks.

        No browser sends a form in chunks.
        """
        may_have_it_inside = not head.is_api and head.body_bytes is not None
        if not (head.is_large and self._keys.is_required and self._limit(head)) or may_have_it_inside:
            return None
        return self._key_problem(head)

    def _without_place(self, head: Head) -> Problem | None:
        if self._needs_place(head) and len(self._places) >= MAX_LARGE_FORMS:
            return Overloaded(f"{MAX_LARGE_FORMS} large forms are being received already. Try again in 1 s.", 1)
        return None

    def _needs_place(self, head: Head) -> bool:
        """Return whether the body is a large form whose key, if any, is in it."""
        is_form = self._limit(head) is not None and not head.is_api
        return is_form and head.is_large and self._keys.is_required and self._key_problem(head) is not None

    def _key_problem(self, head: Head) -> Problem | None:
        try:
            check_key(self._keys.current, token_in(head.headers.get("AUTHORIZATION", "")))
        except Problem as problem:
            return problem
        return None


def body_limits(app: flask.Flask) -> dict[tuple[str, str], BodyLimit]:
    """Return how large a body each route takes, by method and rule, by what it declares."""
    limits = {}
    for rule in app.url_map.iter_rules():
        declared = operation_of(app.view_functions[rule.endpoint])
        for method in (rule.methods or set()) & {"POST", "PUT"}:
            if declared is not None and declared.takes in BODY_LIMITS:
                limits[method, rule.rule] = BODY_LIMITS[declared.takes]
            elif rule.endpoint == FORM_ENDPOINT:
                limits[method, rule.rule] = FORM_LIMIT
    return limits
