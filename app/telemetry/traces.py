"""OpenTelemetry traces, if TOPTHREE_TRACES is set: a span for each request, and within it one for each stage.

A separate thread sends the spans in batches, so that no request waits for the collector; spans that it does not accept
are dropped. OpenTelemetry is imported only if traces are on, since it is an extra and slows the start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..version import __version__
from .metrics import Stages

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

# A collector on the same network takes far less for a batch.
_EXPORT_SECONDS = 5
# W3C Trace Context, section 3.
HEADERS = ("traceparent", "tracestate")
# Section 3.2: version, trace, parent, flags.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(frozen=True)
class Trace:
    """The span of one request."""

    tracer: Tracer
    span: Span
    context: Context

    @property
    def trace_id(self) -> str:
        """Return the id of the trace, as the header `traceparent` writes it."""
        return format(self.span.get_span_context().trace_id, "032x")

    def note_models(self, models: Sequence[str]) -> None:
        """Name the models that answer, each as NAME or NAME/VERSION."""
        self.span.set_attribute("topthree.models", list(models))

    def end(self, status: int, bytes_out: int) -> None:
        """End the span with the response's status and size; a status from 500 on is an error."""
        from opentelemetry.trace import StatusCode

        self.span.set_attributes({"http.response.status_code": status, "http.response.body.size": bytes_out})
        if status >= 500:
            self.span.set_status(StatusCode.ERROR)
            self.span.set_attribute("error.type", str(status))
        self.span.end()


# The trace of the request that this thread works on, if it is traced.
current: ContextVar[Trace | None] = ContextVar("trace", default=None)


class Tracing:
    """The export of one process's spans; to be created after a fork, since a fork copies no threads."""

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "topthree", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS)))
        self._tracer = self._provider.get_tracer("topthree", __version__)

    def begin(self, method: str, route: str, headers: Mapping[str, str], request_id: str) -> Trace:
        """Begin the span of a request, in the trace that its `HEADERS` name, if any."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        facts = {"http.request.method": method, "http.route": route, "topthree.request_id": request_id}
        span = self._tracer.start_span(f"{method} {route}", parent, SpanKind.SERVER, facts)
        return Trace(self._tracer, span, set_span_in_context(span, parent))

    def close(self) -> None:
        """Send the remaining spans and end the thread, which also happens when the process exits."""
        self._provider.shutdown()


def trace_id_of(traceparent: str) -> str:
    """Return the trace id of a header `traceparent`, empty if the header is invalid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else ""


def photo_computed(stages: Stages) -> None:
    """Add the stages of a photo, which must end now, to the trace of the current request."""
    trace = current.get()
    if trace is None:
        return
    end = time.time_ns()
    parts = {"infer": stages.infer_seconds, "decode": stages.decode_seconds, "queue": stages.queue_seconds}
    for name, seconds in parts.items():  # backwards: each ended when the next began
        begin = end - int(seconds * 1e9)
        facts = {"topthree.batch_size": stages.batch_size} if name == "infer" else None
        trace.tracer.start_span(name, trace.context, attributes=facts, start_time=begin).end(end)
        end = begin
