"""Early rejection by the parsed head: capacity, size and key, in the same words as Flask's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import flask
import pytest
from fakes import colour_png, fake_classifier

from app import create_app
from app.errors import Overloaded, TooLarge, Unauthorized
from app.settings import Settings
from app.telemetry import metrics
from app.web.gate import MAX_LARGE_FORMS, Gate, Head, body_limits
from app.web.keys import Key, digest_of, new_token
from app.web.service import service_of
from app.web.uploads import FRAMING_BYTES, REFUSAL

PHOTO = colour_png(9)
TOKEN = new_token()
PREDICT = "/api/v1/predict"
ROUTES = [PREDICT, f"{PREDICT}/batch", "/api/v1/embed", "/api/v1/heatmap", "/api/v1/thumbnail"]
LARGE = FRAMING_BYTES + 1


def head(path: str = PREDICT, body_bytes: int | None = len(PHOTO), method: str = "POST", **headers: str) -> Head:
    """Make a head; headers are written as in WSGI."""
    return Head(method, path, headers, body_bytes)


def fill(app: flask.Flask) -> list[Callable[[], None]]:
    """Admit as many requests as there may be."""
    admission = service_of(app).admission
    leaves = []
    while admission.refusal_if_full() is None:
        leaves.append(admission.enter(0))
    return leaves


@pytest.fixture
def guarded(make_settings: Callable[..., Settings], tmp_path: Path) -> flask.Flask:
    """An application that has one key."""
    keys = tmp_path / "keys"
    keys.write_text(Key("alice", True, digest_of(TOKEN)).as_line())
    return create_app(make_settings(api_keys_file=keys), fake_classifier())


def test_a_refusal_at_capacity_is_what_flask_answers(app: flask.Flask) -> None:
    fill(app)
    refusal = Gate(app).refuse(head(X_REQUEST_ID="mine"))
    assert refusal is not None
    assert refusal.answer is not None
    answered = app.test_client().post(PREDICT, data=PHOTO, headers={"X-Request-ID": "mine"})
    assert (refusal.answer.status, json.loads(refusal.answer.body)) == (503, answered.get_json())
    assert refusal.answer.headers | {"Content-Length": str(len(refusal.answer.body))} == dict(answered.headers)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_of_photos_is_refused_at_capacity(app: flask.Flask, route: str) -> None:
    gate = Gate(app)
    assert gate.refuse(head(route)) is None
    leaves = fill(app)
    refusal = gate.refuse(head(route))
    assert refusal is not None
    assert isinstance(refusal.problem, Overloaded)
    leaves[0]()
    assert gate.refuse(head(route)) is None


def test_every_route_of_large_bodies_declares_its_size(app: flask.Flask) -> None:
    project = "/api/v1/projects/<name>"
    posts = (*ROUTES, "/", "/api/v1/search", f"{project}/classes/<path:label>/photos", f"{project}/predict")
    assert set(body_limits(app)) == {("POST", route) for route in posts} | {("PUT", f"{project}/file")}
    assert {route.rule for route in app.url_map.iter_rules() if "POST" in (route.methods or ())} == {
        *(rule for method, rule in body_limits(app) if method == "POST"),
        f"{project}/publish",
    }


@pytest.mark.parametrize(
    ("method", "path", "is_large"),
    [
        ("POST", "/api/v1/projects/dishes/classes/mug/photos", True),
        ("POST", "/api/v1/projects/dishes/classes/AC/DC/photos", True),
        ("PUT", "/api/v1/projects/dishes/file", True),
        ("PUT", "/api/v1/projects/dishes/classes/mug", False),
        ("POST", "/api/v1/projects/dishes/publish", False),
        ("POST", "/api/v1/projects/a/b/predict", False),
        ("PATCH", "/api/v1/projects/dishes/photos", False),
    ],
)
def test_paths_with_names_have_the_limit_of_their_route(
    app: flask.Flask, method: str, path: str, is_large: bool
) -> None:
    assert (Gate(app).refuse(head(path, LARGE, method)) is None) == is_large


@pytest.mark.parametrize("other", [head("/"), head("/api/v1/labels"), head(method="GET"), head("/healthz", 0)])
def test_all_else_passes_at_capacity(app: flask.Flask, other: Head) -> None:
    fill(app)
    assert Gate(app).refuse(other) is None


@pytest.mark.parametrize("setting", [{"log_addresses": "on"}, {"traces": "http://127.0.0.1:4318"}])
def test_flask_answers_if_the_log_needs_it(make_settings: Callable[..., Settings], setting: dict[str, object]) -> None:
    app = create_app(make_settings(**setting), fake_classifier())
    fill(app)
    refusal = Gate(app).refuse(head())
    assert refusal is not None
    assert refusal.answer is None


def test_a_refusal_is_counted_and_logged_as_any_answer(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    def counted() -> list[float]:
        lines = metrics.render("")[0].decode().splitlines()
        names = ('topthree_problems_total{problem="overloaded"}', f'route="{PREDICT}",status="503"}}')
        return [sum(float(line.split()[-1]) for line in lines if name in line) for name in names]

    fill(app)
    before = counted()
    with caplog.at_level(logging.INFO, "app.requests"):
        Gate(app).refuse(head(X_REQUEST_ID="mine"))
    assert [after - old for after, old in zip(counted(), before, strict=True)] == [1, 1]
    (record,) = (record for record in caplog.records if record.name == "app.requests")
    assert (record.request_id, record.status, record.bytes_in) == ("mine", 503, len(PHOTO))


@pytest.mark.parametrize(
    ("origin", "allowed"), [("https://shop.example", "https://shop.example"), ("https://other.example", None)]
)
def test_pages_of_welcome_origins_can_read_refusals(
    make_settings: Callable[..., Settings], origin: str, allowed: str | None
) -> None:
    gate = Gate(create_app(make_settings(cors_origins="https://shop.example"), fake_classifier()))
    headers = gate.answer(TooLarge("Too large."), head(ORIGIN=origin)).headers
    assert (headers.get("Access-Control-Allow-Origin"), headers["Vary"]) == (allowed, "Origin")


@pytest.mark.parametrize(
    ("route", "max_bytes"),
    [(PREDICT, 127_500), ("/api/v1/embed", 127_500), (ROUTES[1], 200_000), ("/", 90_000)],
)
def test_the_size_is_what_the_route_declares(
    make_settings: Callable[..., Settings], route: str, max_bytes: int
) -> None:
    limits = {"max_upload_bytes": 90_000, "max_batch_bytes": 200_000, "max_waiting_bytes": 200_000}
    gate = Gate(create_app(make_settings(**limits), fake_classifier()))
    assert gate.refuse(head(route, max_bytes + FRAMING_BYTES)) is None
    refusal = gate.refuse(head(route, max_bytes + FRAMING_BYTES + 1))
    assert refusal is not None
    assert isinstance(refusal.problem, TooLarge)
    assert ("200,000" if route.endswith("batch") else "90,000") in refusal.problem.detail
    assert (refusal.answer is None) is (route == "/")  # a page, which Flask writes


def test_a_large_project_file_names_its_setting(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(teach="on")
    gate = Gate(create_app(settings, fake_classifier()))
    size = settings.max_batch_bytes + FRAMING_BYTES + 1
    refusal = gate.refuse(head("/api/v1/projects/mine/file", size, method="PUT"))
    assert refusal is not None
    assert refusal.problem.detail.endswith("(64 MiB). It can be changed with TOPTHREE_MAX_BATCH_BYTES.")


@pytest.mark.parametrize("other", ["/healthz", "/api/v1/labels", f"{PREDICT}/", "/*"])
@pytest.mark.parametrize("size", [LARGE, None], ids=["with a length", "in chunks"])
def test_no_large_body_is_taken_where_no_photo_is(app: flask.Flask, other: str, size: int | None) -> None:
    gate = Gate(app)
    assert gate.refuse(head(other, FRAMING_BYTES)) is None
    refusal = gate.refuse(head(other, size))
    assert refusal is not None
    assert refusal.answer is None  # Flask knows whether it is a 404, a 405, or no matter


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_only_posts_bring_photos(app: flask.Flask, method: str) -> None:
    assert Gate(app).refuse(head(body_bytes=LARGE, method=method)) is not None


def test_bodies_in_chunks_are_measured_as_they_come(app: flask.Flask) -> None:
    gate = Gate(app)
    assert gate.refuse(head(body_bytes=None)) is None
    assert gate.refuse_size(head(body_bytes=10**6)) is None
    assert gate.refuse_size(head(body_bytes=10**9)) is not None


@pytest.mark.parametrize(
    ("request_head", "is_refused"),
    [
        (head(body_bytes=LARGE), True),
        (head(body_bytes=None), True),
        (head(body_bytes=LARGE, AUTHORIZATION="Bearer wrong"), True),
        (head(body_bytes=LARGE, AUTHORIZATION=f"bearer {TOKEN}"), False),
        (head(body_bytes=FRAMING_BYTES), False),  # Flask says so
        (head("/", LARGE), False),  # the key may be a field
        (head("/", None), True),  # no browser sends a form in chunks
        (head("/", None, AUTHORIZATION=f"Bearer {TOKEN}"), False),
    ],
)
def test_large_bodies_need_a_key(guarded: flask.Flask, request_head: Head, is_refused: bool) -> None:
    refusal = Gate(guarded).refuse(request_head)
    assert (refusal is not None) is is_refused
    if refusal is not None:
        assert isinstance(refusal.problem, Unauthorized)
        assert refusal.problem.challenge


def test_guesses_of_keys_with_large_bodies_are_counted(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(Key("alice", True, digest_of(TOKEN)).as_line())
    app = create_app(make_settings(api_keys_file=keys, rate_limit_per_address="2/minute"), fake_classifier())
    refusal = Gate(app).refuse(head(body_bytes=LARGE, AUTHORIZATION="Bearer wrong"))
    assert refusal is not None
    assert refusal.answer is None  # Flask answers, and gets no body
    environ = {REFUSAL: refusal.problem}
    statuses = [app.test_client().post(PREDICT, environ_overrides=environ).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]


def test_no_body_is_taken_at_the_address_of_metrics(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(metrics_address="127.0.0.1:9100"), fake_classifier())
    gate = Gate(app)
    assert gate.refuse(Head("POST", PREDICT, {}, LARGE, "8000")) is None
    assert gate.refuse(Head("POST", PREDICT, {}, LARGE, "9100")) is not None


def test_few_large_forms_are_taken_without_a_key(guarded: flask.Flask) -> None:
    gate, form = Gate(guarded), head("/", LARGE)
    releases = [gate.take_place(form) for _ in range(MAX_LARGE_FORMS)]
    refusal = gate.refuse(form)
    assert refusal is not None
    assert isinstance(refusal.problem, Overloaded)
    assert refusal.answer is None  # a page, which Flask writes
    for other in (head("/", LARGE, AUTHORIZATION=f"Bearer {TOKEN}"), head("/", FRAMING_BYTES)):
        assert gate.refuse(other) is None
        gate.take_place(other)
    gate.take_place(head(body_bytes=LARGE))
    for _ in range(2):
        releases[0]()
    assert gate.refuse(form) is None
    gate.take_place(form)
    assert gate.refuse(form) is not None
