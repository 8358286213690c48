"""Each request is counted, timed, logged and given an id; and `/metrics` is served, at an address of its own."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import flask

from ..errors import NotFound, Problem
from ..telemetry import logs, metrics, traces
from .operations import TEXT, operation
from .service import RequestState, begin_request, request_state, service

log = logging.getLogger(logs.REQUESTS_LOGGER)

blueprint = flask.Blueprint("observability", __name__)

UNMATCHED = "unmatched"
METRICS = "observability.metrics"
# The metrics' address serves these. Their requests are too frequent to be logged at the usual level.
PROBES = ("health.healthz", "health.readyz", METRICS)
_STAGE = re.compile(r"(\w+);dur=([0-9.]+)")


@blueprint.get("/metrics", endpoint="metrics")
@operation({"text/plain": TEXT}, problems=(NotFound,))
def show_metrics() -> flask.Response:
    """Return figures for Prometheus.

    They are served only at an address of their own, if one is configured.
    """
    readiness = service().readiness
    metrics.set_readiness(readiness.warm_workers, readiness.planned)
    body, content_type = metrics.render(flask.request.headers.get("Accept", ""))
    return flask.Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def begin() -> None:
    """Give the current request its state, an id and a trace, and count it until it ends."""
    state = begin_request(logs.choose_request_id(flask.request.headers.get(logs.ID_HEADER)))
    state.at_end.callback(_clear_context)
    logs.request_id.set(state.id)
    _begin_trace(state)
    metrics.request_started()
    state.at_end.callback(metrics.request_ended)


def _begin_trace(state: RequestState) -> None:
    request, tracing = flask.request, service().tracing
    if tracing is None or request.endpoint in PROBES:
        logs.trace_id.set(traces.trace_id_of(request.headers.get("traceparent", "")))
        return
    method = request.method if request.method in metrics.METHODS else "_OTHER"
    headers = {name: request.headers[name] for name in traces.HEADERS if name in request.headers}
    state.trace = tracing.begin(method, _route(), headers, state.id)
    traces.current.set(state.trace)
    logs.trace_id.set(state.trace.trace_id)


def _clear_context() -> None:
    logs.request_id.set("")
    logs.trace_id.set("")
    traces.current.set(None)


def _route() -> str:
    """Return the rule that matched the current request, not its path, since metrics must have few names."""
    return flask.request.url_rule.rule if flask.request.url_rule else UNMATCHED


def check_address() -> None:
    """Raise NotFound for the metrics at the public address, and for anything but metrics and probes at the other."""
    address, endpoint = service().settings.metrics_address, flask.request.endpoint
    # A trusted proxy's headers may change the port that the request seems to have arrived at.
    environ = flask.request.environ
    port = environ.get("werkzeug.proxy_fix.orig", {}).get("SERVER_PORT") or environ.get("SERVER_PORT")
    if address and port == address.rpartition(":")[2]:
        if endpoint not in PROBES:
            raise NotFound("Only /metrics, /healthz and /readyz are served at this address.")
    elif endpoint == METRICS:
        raise NotFound("Metrics are served only at TOPTHREE_METRICS_ADDRESS.")


def finish(response: flask.Response) -> flask.Response:
    """Add the request's id to its answer, and report the request when the answer has been sent."""
    state = request_state()
    response.headers[logs.ID_HEADER] = state.id
    facts = _facts(response, state)
    if flask.request.method == "HEAD":  # no body is sent, and nothing asks for its parts
        _report(facts, 0)
    elif response.is_streamed:
        response.response = _until_sent(response.response, facts)  # type: ignore[arg-type]
    else:
        _report(facts, response.content_length or 0)
    return response


def _facts(response: flask.Response, state: RequestState) -> dict[str, Any]:
    """Gather what is reported, while the request is current."""
    request = flask.request
    facts = {
        "request_id": state.id,
        "method": request.method,
        "route": _route(),
        "status": response.status_code,
        "bytes_in": request.content_length or 0,
        "stages_ms": {name: float(value) for name, value in _STAGE.findall(response.headers.get("Server-Timing", ""))},
        "began": state.began,
        "trace": state.trace,
        "is_probe": request.endpoint in PROBES,
    }
    if state.models:
        facts["models"] = state.models
    if service().settings.log_addresses == "on":
        facts["address"] = request.remote_addr
    return facts


def _until_sent(chunks: Iterable[bytes], facts: dict[str, Any]) -> Iterator[bytes]:
    """Pass on a body as it is produced, and report its request at the end, or when the client has disconnected."""
    sent = 0
    try:
        for chunk in chunks:
            sent += len(chunk)
            yield chunk
    finally:
        _report(facts, sent)


def report_refused(
    problem: Problem, request_id: str, *, method: str, route: str = UNMATCHED, bytes_in: int = 0, bytes_out: int
) -> None:
    """Count and log a request that was rejected before it reached Flask."""
    metrics.count_problem(problem.slug)
    facts = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": problem.status,
        "bytes_in": bytes_in,
        "stages_ms": {},
        "began": time.monotonic(),
        "trace": None,
        "is_probe": False,
    }
    _report(facts, bytes_out)


def _report(facts: dict[str, Any], bytes_out: int) -> None:
    seconds = time.monotonic() - facts.pop("began")
    metrics.request_answered(facts["route"], facts["method"], facts["status"], seconds)
    trace: traces.Trace | None = facts.pop("trace")
    if trace is not None:
        trace.end(facts["status"], bytes_out)
        facts["trace_id"] = trace.trace_id
    level = logging.DEBUG if facts.pop("is_probe") else logging.INFO
    if log.isEnabledFor(level):
        facts |= {"bytes_out": bytes_out, "duration_ms": round(1000 * seconds, 2)}
        text = "%(method)s %(route)s %(status)d, %(bytes_in)d bytes in, %(bytes_out)d out, %(duration_ms).1f ms"
        if "models" in facts:
            text += ", by " + ", ".join(facts["models"])
        log.log(level, text, facts, extra=facts)
