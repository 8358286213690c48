"""`Door`: what a full house answers to photos, in the worker's event loop and without a thread.

Of four times the load that can be carried, three requests in four are refused. A thread, gunicorn's parser and the
framework would take more of the processor for that than the answer is worth; here it is a comparison of two numbers,
one pattern over the head, and one line in the log.

Only the plainest requests are refused here. Whatever is unusual in a head is for gunicorn's parser to judge, and
whoever needs more of the answer than this, such as a web page that wants to read it, is refused in a thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import flask

from . import logs
from .arrivals import Arrival
from .connections import refusal
from .observability import report_refused
from .scheduling import Admission
from .settings import Settings

_PLAIN_HEAD = re.compile(
    rb"POST (?P<path>/[a-z0-9/]*)(?:\?[!-~]*)? HTTP/1\.1\r\n(?P<fields>(?:[A-Za-z0-9-]+:[\t -~]*\r\n)*)\r\n"
)
_FIELD = re.compile(rb"^(connection|origin|transfer-encoding|x-request-id):([^\r]*)", re.IGNORECASE | re.MULTILINE)
_API = "/api/"


@dataclass(frozen=True)
class Refused:
    """An answer in bytes, and whether its connection goes on after it."""

    answer: bytes
    keeps_connection: bool


class Door:
    """The way into one application, for the routes that take photos."""

    def __init__(self, app: flask.Flask) -> None:
        settings: Settings = app.config["TOPTHREE"]
        self._admission: Admission = app.extensions["topthree_admission"]
        # A trace, and an address in the log, are made of what only the framework has read.
        is_plain = settings.log_addresses == "off" and not settings.traces
        rules = app.url_map.iter_rules() if is_plain else ()
        self._routes = {
            rule.rule.encode() for rule in rules if "POST" in (rule.methods or ()) and rule.rule.startswith(_API)
        }

    def refuse(self, arrival: Arrival, *, may_keep: bool) -> Refused | None:
        """Refuse a request that has arrived whole, or waits for leave to send its body, where the house is full.

        Returns None where a thread is to have it.
        """
        problem = self._admission.refusal_if_full()
        head = _PLAIN_HEAD.fullmatch(arrival.head) if problem and arrival.is_alone else None
        if problem is None or head is None or head["path"] not in self._routes:
            return None
        fields = {name.lower(): value.strip() for name, value in _FIELD.findall(head["fields"])}
        if b"origin" in fields or b"transfer-encoding" in fields:
            return None
        keeps = may_keep and fields.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        request_id = logs.choose_request_id(fields.get(b"x-request-id", b"").decode("ascii"))
        answer = refusal(problem, request_id, keeps_connection=keeps)
        report_refused(
            problem,
            request_id,
            route=head["path"].decode("ascii"),
            bytes_in=len(arrival.data) - arrival.head_bytes,
            bytes_out=len(answer),
        )
        return Refused(answer, keeps)
