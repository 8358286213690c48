"""Traces as a real OTLP receiver gets them: a span per request, with the stages of its photos; none when off."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
from fakes import colour_png, fake_classifier
from servers import PATIENCE_SECONDS, serving
from shapes import form

from app import create_app
from app.settings import Settings
from app.telemetry import logs, traces
from app.web.service import service_of

pytest.importorskip("opentelemetry.sdk", reason="needs the extra 'otel'")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PREDICT = "/api/v1/predict"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Receiver:
    """A collector of OTLP over HTTP: keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.end_headers()
                receiver.take(ExportTraceServiceRequest.FromString(body))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of a request."""
        with self.arrived:
            for resource in request.resource_spans:
                self.services |= {
                    item.value.string_value for item in resource.resource.attributes if item.key == "service.name"
                }
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.arrived.notify_all()

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def app(make_settings: Callable[..., Settings], receiver: Receiver) -> flask.Flask:
    """An application with a fake engine that sends its traces to the receiver."""
    return create_app(make_settings(traces=receiver.url), fake_classifier())


def predict(app: flask.Flask, photo: bytes | None = None, traceparent: str = TRACEPARENT) -> Any:
    """Send a photo within a trace, then have all spans sent."""
    answer = app.test_client().post(
        PREDICT,
        data=colour_png(5) if photo is None else photo,
        headers={"Content-Type": "image/png", "traceparent": traceparent},
    )
    service_of(app).tracing.close()
    return answer


def facts(span: Span) -> dict[str, str | int | list[str]]:
    """Return a span's attributes."""
    values = {item.key: item.value for item in span.attributes}
    return {
        key: value.string_value or [each.string_value for each in value.array_value.values] or value.int_value
        for key, value in values.items()
    }


def test_request_is_a_span_within_the_callers_trace(app: flask.Flask, receiver: Receiver) -> None:
    answer = predict(app)
    (span,) = receiver.named(f"POST {PREDICT}")
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    assert facts(span) == {
        "http.request.method": "POST",
        "http.route": PREDICT,
        "http.response.status_code": 200,
        "http.response.body.size": len(answer.data),
        "topthree.request_id": answer.headers["X-Request-ID"],
        "topthree.models": ["resnet18"],
    }
    assert receiver.services == {"topthree"}


def test_stages_are_spans_within_the_request_one_after_the_other(app: flask.Flask, receiver: Receiver) -> None:
    predict(app)
    (request,) = receiver.named(f"POST {PREDICT}")
    stages = [receiver.named(name)[0] for name in ("queue", "decode", "infer")]
    assert {span.parent_span_id for span in stages} == {request.span_id}
    assert {span.trace_id for span in receiver.spans} == {bytes.fromhex(TRACE)}
    edges = [edge for span in stages for edge in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert [request.start_time_unix_nano, *edges, request.end_time_unix_nano] == sorted(
        [request.start_time_unix_nano, *edges, request.end_time_unix_nano]
    )
    assert facts(stages[-1]) == {"topthree.batch_size": 1}


def test_photos_of_a_batch_belong_to_its_request(app: flask.Flask, receiver: Receiver) -> None:
    photos = [colour_png(number) for number in range(3)]
    assert app.test_client().post(f"{PREDICT}/batch", **form(*photos)).status_code == 200
    service_of(app).tracing.close()
    (request,) = receiver.named(f"POST {PREDICT}/batch")
    assert [span.parent_span_id for span in receiver.named("infer")] == [request.span_id] * 3


def test_only_server_errors_are_errors(app: flask.Flask, receiver: Receiver) -> None:
    app.add_url_rule("/api/fail", "fail", lambda: 1 / 0)
    app.test_client().get("/api/fail")
    predict(app, b"no photo")
    (refused,), (failed,) = receiver.named(f"POST {PREDICT}"), receiver.named("GET /api/fail")
    assert (refused.status.code, facts(refused)["http.response.status_code"]) == (Status.STATUS_CODE_UNSET, 415)
    assert (failed.status.code, facts(failed)["error.type"]) == (Status.STATUS_CODE_ERROR, "500")


def test_probes_leave_no_trace(app: flask.Flask, receiver: Receiver) -> None:
    for path in ("/healthz", "/readyz"):
        app.test_client().get(path)
    predict(app)
    assert len(receiver.named(f"POST {PREDICT}")) == 1
    assert [span.name for span in receiver.spans if span.name.endswith("z")] == []


def test_requests_do_not_wait_for_a_dead_collector(app: flask.Flask, receiver: Receiver) -> None:
    receiver.server.server_close()
    answer = app.test_client().post(PREDICT, data=colour_png(5), content_type="image/png")
    assert answer.status_code == 200


@pytest.mark.parametrize("setting", [{}, {"traces": "http://127.0.0.1:9"}])
def test_log_names_the_trace(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture, setting: dict[str, str]
) -> None:
    caplog.set_level(logging.INFO, logs.REQUESTS_LOGGER)
    caplog.handler.addFilter(logs.RequestFilter(addresses=False))
    app = create_app(make_settings(**setting), fake_classifier())
    app.test_client().get("/api/v1/labels", headers={"traceparent": TRACEPARENT})
    assert caplog.records[-1].trace_id == TRACE
    assert logs.trace_id.get() == ""


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (TRACEPARENT, TRACE),
        (TRACEPARENT.replace("00-", "cc-", 1) + "-more", TRACE),
        ("", ""),
        (TRACEPARENT.upper(), ""),
        (TRACEPARENT.replace("00-", "ff-", 1), ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"{TRACEPARENT}\n", ""),
    ],
)
def test_only_a_valid_traceparent_names_a_trace(header: str, trace: str) -> None:
    assert traces.trace_id_of(header) == trace


def test_opentelemetry_is_not_imported_when_off() -> None:
    code = (
        "import json, sys\nfrom app import create_app\ncreate_app().test_client().get('/')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert [module for module in json.loads(done.stdout) if module.startswith("opentelemetry")] == []


@pytest.mark.live
def test_each_worker_sends_its_spans_before_it_ends(
    receiver: Receiver, packaged_settings: Settings, tmp_path: Path
) -> None:
    with serving(packaged_settings.cache, tmp_path / "log", workers=2, traces=receiver.url) as server:
        server.wait_until_ready()
        for number in range(20):
            answer = httpx.post(f"{server.url}{PREDICT}", content=colour_png(number), timeout=PATIENCE_SECONDS)
            assert answer.status_code == 200
    assert len(receiver.named(f"POST {PREDICT}")) == 20
    assert len(receiver.named("infer")) == 20
