"""Each request counted, timed, logged and named by an id; and `/metrics`, at an address of its own."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import flask

from ..errors import NotFound, Problem
from ..settings import Settings
from ..telemetry import logs, metrics, traces
from .uploads import settings_of_app

log = logging.getLogger(logs.REQUESTS_LOGGER)

blueprint = flask.Blueprint("observability", __name__)

UNMATCHED = "unmatched"
METRICS = "observability.show_metrics"
# What the address of the metrics answers beside them, and what is asked too often to be worth a line.
PROBES = ("health.healthz", "health.readyz", METRICS)
_STAGE = re.compile(r"(\w+);dur=([0-9.]+)")


def init_app(app: flask.Flask, settings: Settings) -> None:
    """Register the hooks; to be called before others add theirs, so that these begin first and end last."""
    app.extensions["topthree_traces"] = traces.Tracing(settings.traces) if settings.traces else None
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_end)


@blueprint.get("/metrics")
def show_metrics() -> flask.Response:
    """Answer with the metrics of all workers together, for Prometheus; loads nothing."""
    readiness = flask.current_app.extensions["topthree_readiness"]
    metrics.set_readiness(readiness.warm_workers, readiness.planned)
    body, content_type = metrics.render(flask.request.headers.get("Accept", ""))
    return flask.Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def _begin() -> None:
    flask.g.request_id = logs.choose_request_id(flask.request.headers.get(logs.ID_HEADER))
    flask.g.began = time.monotonic()
    logs.request_id.set(flask.g.request_id)
    _begin_trace()
    metrics.request_started()
    flask.g.counted_in = True
    _keep_to_its_address()


def _begin_trace() -> None:
    request = flask.request
    tracing: traces.Tracing | None = flask.current_app.extensions["topthree_traces"]
    if tracing is None or request.endpoint in PROBES:
        flask.g.trace = None
        logs.trace_id.set(traces.trace_id_of(request.headers.get("traceparent", "")))
        return
    method = request.method if request.method in metrics.METHODS else "_OTHER"
    headers = {name: request.headers[name] for name in traces.HEADERS if name in request.headers}
    flask.g.trace = trace = tracing.begin(method, _route(), headers, flask.g.request_id)
    traces.current.set(trace)
    logs.trace_id.set(trace.trace_id)


def _route() -> str:
    """Return the rule that matched the current request; never its path, of which there are endlessly many."""
    return flask.request.url_rule.rule if flask.request.url_rule else UNMATCHED


def _keep_to_its_address() -> None:
    """Refuse what is not served where the current request arrived: metrics in public, and all else beside them."""
    address, endpoint = settings_of_app().metrics_address, flask.request.endpoint
    # A trusted proxy's headers may change the port that the request seems to have arrived at.
    environ = flask.request.environ
    port = environ.get("werkzeug.proxy_fix.orig", {}).get("SERVER_PORT") or environ.get("SERVER_PORT")
    if address and port == address.rpartition(":")[2]:
        if endpoint not in PROBES:
            raise NotFound("Only /metrics, /healthz and /readyz are served at this address.")
    elif endpoint == METRICS:
        raise NotFound("Metrics are not shown here; TOPTHREE_METRICS_ADDRESS gives them an address of their own.")


def _finish(response: flask.Response) -> flask.Response:
    response.headers[logs.ID_HEADER] = flask.g.request_id
    facts = _facts(response)
    if response.is_streamed and not response.direct_passthrough:
        response.response = _until_sent(response.response, facts)  # type: ignore[arg-type]
    else:
        _report(facts, response.content_length or 0)
    return response


def _facts(response: flask.Response) -> dict[str, Any]:
    """Gather what is to be reported, while the request is at hand."""
    request = flask.request
    facts = {
        "request_id": flask.g.request_id,
        "method": request.method,
        "route": _route(),
        "status": response.status_code,
        "bytes_in": request.content_length or 0,
        "stages_ms": {name: float(value) for name, value in _STAGE.findall(response.headers.get("Server-Timing", ""))},
        "began": flask.g.began,
        "trace": flask.g.trace,
        "is_probe": request.endpoint in PROBES,
    }
    if settings_of_app().log_addresses == "on":
        facts["address"] = request.remote_addr
    return facts


def _until_sent(chunks: Iterable[bytes], facts: dict[str, Any]) -> Iterator[bytes]:
    """Pass a body on as it is made, and report when it ends, or when its reader has gone."""
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
    """Count and log a request that was refused before the application had it."""
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
        log.log(level, text, facts, extra=facts)


def _end(_: BaseException | None = None) -> None:
    if flask.g.pop("counted_in", False):
        metrics.request_ended()
    logs.request_id.set("")
    logs.trace_id.set("")
    traces.current.set(None)
