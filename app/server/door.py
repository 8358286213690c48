"""`Door`: what a worker's event loop decides by a request's head alone, without a thread.

- A service at capacity refuses photos here. Of four times the load that can be carried, three requests in four are
  refused. A thread, gunicorn's parser and the framework would take too much of the processor for that; here it is a
  comparison of two numbers, one pattern over the head, and one line in the log. Only the plainest requests are refused
  so. gunicorn's parser judges any unusual head, and a thread refuses a request that needs more in its answer, such as
  one of a web page, which must be allowed to read it.
- A large body is not received if the request is refused anyway: without a key where one is needed, or at an address
  that takes no photo, or none of that size. A thread answers such a request at once.
- The form of the page without script carries its key in its body, so the body must be received to know the key. Only
  a few large ones are received at a time; a thread answers one more at once (503).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import flask

from ..errors import Overloaded
from ..settings import Settings
from ..web.observing import report_refused
from ..web.service import service_of
from ..web.uploads import FRAMING_BYTES
from .arrivals import Arrival
from .connections import refusal, request_id_in

_PLAIN_HEAD = re.compile(
    rb"POST (?P<path>/[a-z0-9/]*)(?:\?[!-~]*)? HTTP/1\.1\r\n(?P<fields>(?:[A-Za-z0-9-]+:[\t -~]*\r\n)*)\r\n"
)
_FIELD = re.compile(rb"^(connection|origin|traceparent|transfer-encoding):([^\r]*)", re.IGNORECASE | re.MULTILINE)
# Only a thread can handle these: a header for the page's origin, an id in the log, the body's end.
_NEEDS_A_THREAD = (b"origin", b"traceparent", b"transfer-encoding")
_TARGET = re.compile(rb"(?:\r\n)?([^ \r\n]+) (?:[A-Za-z][A-Za-z0-9+.-]*://[^ /?#\r\n]*)?([^ ?#\r\n]*)")
_TOKEN = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]([^\r\n]*)", re.IGNORECASE)
_API = "/api/"
MAX_LARGE_FORMS = 2


@dataclass(frozen=True)
class Refused:
    """An answer in bytes, and whether its connection goes on after it."""

    answer: bytes
    keeps_connection: bool


class Door:
    """The early decisions for one application."""

    def __init__(self, app: flask.Flask) -> None:
        ours = service_of(app)
        settings, self._admission, self._keys = ours.settings, ours.admission, ours.keys
        rules = [rule.rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ())]
        self._photo_routes = {rule.encode() for rule in rules if rule.startswith(_API)}
        self._most_bytes = {rule.encode(): _most_bytes(rule, settings) for rule in rules}
        self._places: set[object] = set()  # of large forms whose key is not known yet
        # A trace, and an address in the log, are made of what only the framework has read.
        self._refuses = settings.log_addresses == "off" and not settings.traces

    def wants_body(self, arrival: Arrival) -> bool:
        """Return, once a head has arrived, whether the rest of the body is to be received."""
        method, path = _target(arrival.head)
        most = self._most_bytes.get(path, 0) if method == b"POST" else 0
        is_form = most > 0 and path not in self._photo_routes
        if most and not is_form and self._keys.is_required and not self._has_key(arrival.head):
            return False
        if arrival.declared_bytes is None:  # no browser sends a form so; its key could be anywhere in it
            return most > 0 and not (is_form and self._keys.is_required)
        return arrival.declared_bytes <= max(most, FRAMING_BYTES)

    def take_place(self, arrival: Arrival) -> Callable[[], None]:
        """Give a large body a place if a key is needed and can only be inside it.

        Returns a function that frees the place; any thread may call it, more than once. Raises Overloaded if no place
        is free.
        """
        if not self._may_have_key_inside(arrival):
            return lambda: None
        if len(self._places) >= MAX_LARGE_FORMS:
            raise Overloaded(f"{MAX_LARGE_FORMS} large forms are being received already. Try again in 1 s.", 1)
        place = object()
        self._places.add(place)
        return lambda: self._places.discard(place)

    def _may_have_key_inside(self, arrival: Arrival) -> bool:
        is_large = arrival.declared_bytes is None or arrival.declared_bytes > FRAMING_BYTES
        if not (self._keys.is_required and is_large):
            return False
        method, path = _target(arrival.head)
        is_form = method == b"POST" and path in self._most_bytes and path not in self._photo_routes
        return is_form and not self._has_key(arrival.head)

    def refuse(self, arrival: Arrival, *, may_keep: bool) -> Refused | None:
        """Refuse a request if the service is at capacity; it has arrived whole, or waits for leave to send its body.

        Returns None if a thread is to handle it.
        """
        problem = self._admission.refusal_if_full() if self._refuses else None
        head = _PLAIN_HEAD.fullmatch(arrival.head) if problem and arrival.is_alone else None
        if problem is None or head is None or head["path"] not in self._photo_routes:
            return None
        fields = {name.lower(): value.strip() for name, value in _FIELD.findall(head["fields"])}
        if any(name in fields for name in _NEEDS_A_THREAD):
            return None
        keeps = may_keep and fields.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        request_id = request_id_in(arrival.head)
        answer = refusal(problem, request_id, keeps_connection=keeps)
        report_refused(
            problem,
            request_id,
            method="POST",
            route=head["path"].decode("ascii"),
            bytes_in=len(arrival.data) - arrival.head_bytes,
            bytes_out=len(answer),
        )
        return Refused(answer, keeps)

    def _has_key(self, head: bytes) -> bool:
        found = _TOKEN.search(head)
        key = self._keys.current.find(found[1].decode("latin-1").strip()) if found else None
        return key is not None and key.enabled


def _most_bytes(rule: str, settings: Settings) -> int:
    """Return how large a body the route takes; of a photo as base64 it is larger by a third."""
    most = settings.max_batch_bytes if rule.endswith("/batch") else settings.max_upload_bytes
    return max(most, settings.max_upload_bytes * 4 // 3 + 4 if rule.startswith(_API) else 0) + FRAMING_BYTES


def _target(head: bytes) -> tuple[bytes, bytes]:
    """Read the method, and the path as the framework does: decoded, one slash at its beginning, without a host."""
    found = _TARGET.match(head)
    return (found[1], b"/" + unquote_to_bytes(found[2]).lstrip(b"/")) if found else (b"", b"")
