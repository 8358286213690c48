"""Each request is counted and has an id; metrics are served at their own address."""

from __future__ import annotations

import logging
from collections.abc import Callable

import flask
import pytest
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from app.settings import Settings
from app.telemetry import logs

PREDICT = "/api/v1/predict"
OWN = {"base_url": "http://127.0.0.1:9100", "environ_overrides": {"SERVER_PORT": "9100", "REMOTE_ADDR": "10.0.0.9"}}


@pytest.fixture
def app(make_settings: Callable[..., Settings]) -> flask.Flask:
    """An application with a fake engine, whose metrics have an address."""
    return create_app(make_settings(metrics_address="10.0.0.5:9100"), fake_classifier())


@pytest.fixture
def client(app: flask.Flask) -> FlaskClient:
    """A client of it."""
    return app.test_client()


def numbers(client: FlaskClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Ask for the metrics and return each sample's value by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics", **OWN).text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def growth(client: FlaskClient, act: Callable[[], object], name: str, **labels: str) -> float:
    """Return by how much a sample grows in the meantime."""
    key = (name, frozenset(labels.items()))
    before = numbers(client).get(key, 0)
    act()
    return numbers(client).get(key, 0) - before


def send(client: FlaskClient, photo: bytes = b"", **options: object) -> object:
    """Send a photo as a body."""
    return client.post(PREDICT, data=photo or colour_png(3), content_type="image/png", **options)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("topthree_requests_total", {"route": PREDICT, "method": "POST", "status": "200"}),
        ("topthree_request_seconds_count", {"route": PREDICT}),
        ("topthree_stage_seconds_count", {"stage": "decode"}),
        ("topthree_stage_seconds_count", {"stage": "queue"}),
        ("topthree_stage_seconds_count", {"stage": "infer"}),
        ("topthree_batch_photos_sum", {}),
        ("topthree_cache_lookups_total", {"source": "miss"}),
    ],
)
def test_prediction_is_counted(client: FlaskClient, name: str, labels: dict[str, str]) -> None:
    assert growth(client, lambda: send(client), name, **labels) == 1


def test_a_cached_response_is_a_hit_and_computes_nothing(client: FlaskClient) -> None:
    send(client)
    assert growth(client, lambda: send(client), "topthree_cache_lookups_total", source="hit") == 1
    assert growth(client, lambda: send(client), "topthree_stage_seconds_count", stage="infer") == 0


def test_broken_photo_is_counted_by_reason(client: FlaskClient) -> None:
    for name, label in (("topthree_decode_failures_total", "reason"), ("topthree_problems_total", "problem")):
        assert growth(client, lambda: send(client, b"text"), name, **{label: "unsupported-image"}) == 1


def test_unknown_paths_and_methods_make_no_names(client: FlaskClient) -> None:
    def wander() -> None:
        for number in range(5):
            client.open(f"/none/{number}", method=f"NONE{number}")

    labels = {"route": "unmatched", "method": "other", "status": "404"}
    assert growth(client, wander, "topthree_requests_total", **labels) == 5


def test_head_of_an_answer_in_parts_is_counted(app: flask.Flask) -> None:
    app.add_url_rule("/parts", "parts", lambda: flask.Response(iter([b"one", b"two"])))
    labels = {"route": "/parts", "method": "HEAD", "status": "200"}
    client = app.test_client()
    assert growth(client, lambda: client.head("/parts"), "topthree_requests_total", **labels) == 1


def test_nothing_stays_in_progress(client: FlaskClient) -> None:
    def send_two() -> None:
        for photo in (colour_png(9), b"text"):
            send(client, photo)

    for name in ("photos_waiting", "photos_in_flight", "upload_bytes", "requests_in_progress"):
        assert growth(client, send_two, f"topthree_{name}") == 0
    assert numbers(client)["topthree_requests_in_progress", frozenset()] == 1  # the one that asks


def test_model_and_version_are_facts_of_one(client: FlaskClient) -> None:
    send(client)
    facts = [dict(labels) for (name, labels), value in numbers(client).items() if name == "topthree_model_info"]
    assert [fact["name"] for fact in facts] == ["resnet18"]


def test_metrics_load_nothing(make_settings: Callable[..., Settings]) -> None:
    classifier = fake_classifier()
    settings = make_settings(metrics_address="10.0.0.5:9100")
    assert create_app(settings, classifier).test_client().get("/metrics", **OWN).status_code == 200
    assert classifier.loaded_model is None


def test_metrics_are_nowhere_by_default(make_settings: Callable[..., Settings]) -> None:
    client = create_app(make_settings(), fake_classifier()).test_client()
    for options in ({}, OWN):
        assert client.get("/metrics", **options).status_code == 404


@pytest.fixture
def apart(make_settings: Callable[..., Settings]) -> FlaskClient:
    """A client of an application whose metrics have an address of their own, behind a proxy."""
    settings = make_settings(metrics_address="10.0.0.5:9100", trusted_proxies=1)
    return create_app(settings, fake_classifier()).test_client()


@pytest.mark.parametrize(
    ("path", "status"), [("/metrics", 200), ("/healthz", 200), ("/readyz", 503), ("/", 404), ("/api/v1/labels", 404)]
)
def test_the_metrics_address_serves_metrics_and_probes_only(apart: FlaskClient, path: str, status: int) -> None:
    assert apart.get(path, **OWN).status_code == status


def test_the_public_address_has_no_metrics(apart: FlaskClient) -> None:
    assert apart.get("/metrics").status_code == 404
    assert apart.get("/metrics", headers={"X-Forwarded-Host": "127.0.0.1:9100"}).status_code == 404
    assert apart.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/", "/none", "/healthz", "/readyz", "/api/v1/labels", "/api/none", "/api/fail"])
def test_every_answer_carries_the_request_id(app: flask.Flask, path: str) -> None:
    app.add_url_rule("/api/fail", "fail", lambda: 1 / 0)
    client = app.test_client()
    assert client.get(path, headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    assert len(client.get(path, headers={"X-Request-ID": "not mine"}).headers["X-Request-ID"]) == 32
    assert logs.request_id.get() == ""


def test_log_of_a_request_has_its_figures_and_no_more(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logs.REQUESTS_LOGGER)
    photo = colour_png(7)
    answer = client.post(f"{PREDICT}?top=1", data=photo, content_type="image/png")
    record = next(record for record in caplog.records if record.name == logs.REQUESTS_LOGGER)
    assert (record.method, record.route, record.status) == ("POST", PREDICT, 200)
    assert (record.bytes_in, record.bytes_out) == (len(photo), len(answer.data))
    assert record.request_id == answer.headers["X-Request-ID"]
    assert set(record.stages_ms) == {"decode", "queue", "infer", "total"}
    assert record.duration_ms > 0
    assert not hasattr(record, "address")
    assert "top=1" not in record.getMessage()


def test_probes_are_logged_only_for_debugging(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logs.REQUESTS_LOGGER)
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path, **OWN)
    assert [record for record in caplog.records if record.name == logs.REQUESTS_LOGGER] == []


def test_address_is_logged_when_asked_for(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logs.REQUESTS_LOGGER)
    create_app(make_settings(log_addresses="on"), fake_classifier()).test_client().get("/")
    assert caplog.records[-1].address == "127.0.0.1"
