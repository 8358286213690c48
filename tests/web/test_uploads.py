"""Reading uploads: in memory and within limits."""

from __future__ import annotations

import base64
import gc
import json
import tracemalloc
from collections.abc import Callable

import flask
import pytest
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient
from shapes import SlowBody, assert_problem, form

from app import create_app
from app.errors import NoPhoto, TooLarge
from app.settings import MEBI, Settings
from app.web.service import begin_request, service_of
from app.web.uploads import FRAMING_BYTES, check_photo, request_deadline

FIVE_MB = 5_000_000
COCK = colour_png(7, 251, 80)


@pytest.mark.parametrize("path", ["/api/v1/labels", "/healthz", "/"])
def test_unread_bodies_do_no_harm(client: FlaskClient, path: str) -> None:
    assert client.get(path, data=bytes(FIVE_MB)).status_code == 200


def test_check_photo_gives_back_what_fits() -> None:
    assert check_photo(b"12345", 5) == b"12345"


@pytest.mark.parametrize(
    ("size", "limit", "error", "text"),
    [
        (0, 5, NoPhoto, "is empty"),
        (6, 5, TooLarge, r"^The limit is 5 bytes\. Send a smaller copy\.$"),
        (2**21 + 1, 2**21, TooLarge, r"2,097,152 bytes \(2 MiB\)"),
    ],
)
def test_check_photo_refuses(size: int, limit: int, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_photo(bytes(size), limit)


def test_chunked_body_is_limited_as_it_arrives(make_settings: Callable[..., Settings], app: flask.Flask) -> None:
    body = SlowBody()
    environ = {"wsgi.input": body, "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = app.test_client().post("/api/v1/predict", content_type="image/jpeg", environ_overrides=environ)
    assert_problem(answer, 413, "too-large")
    limit = make_settings().max_upload_bytes
    assert limit < body.taken < limit + 1_000_000


def test_the_shorter_deadline_of_setting_and_client_counts(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(deadline_ms=5000), fake_classifier())
    for asked, seconds in ((None, 5), ("2000", 2), ("60000", 5), ("9" * 12, 5)):
        with app.test_request_context("/", headers={"X-Request-Timeout-Ms": asked} if asked else {}):
            begin_request("an-id")
            assert request_deadline().remaining_seconds == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize("asked", ["0", "-5", "1.5", "soon", "", "٣"])
def test_a_deadline_that_is_no_number_is_refused(client: FlaskClient, asked: str) -> None:
    headers = {"X-Request-Timeout-Ms": asked}
    answer = client.post("/api/v1/predict", **form(colour_png(1)), headers=headers)
    assert "X-Request-Timeout-Ms" in assert_problem(answer, 400, "bad-parameter")


def test_a_deadline_knows_whether_the_client_has_left(app: flask.Flask) -> None:
    for has_left in (False, True):
        environ = {"waitress.client_disconnected": lambda has_left=has_left: has_left}
        with app.test_request_context(environ_overrides=environ):
            begin_request("any")
            assert request_deadline().is_abandoned() is has_left


def test_a_request_releases_its_admission_in_any_case(app: flask.Flask, client: FlaskClient) -> None:
    for body, status in ((form(colour_png(1)), 200), (form(b"text"), 415), ({"data": b"x"}, 415)):
        assert client.post("/api/v1/predict", **body).status_code == status
    admission = service_of(app).admission
    assert (admission.requests, admission.bytes) == (0, 0)


def test_what_does_not_fit_is_refused_before_it_is_read(app: flask.Flask, client: FlaskClient) -> None:
    admission = service_of(app).admission
    leave = admission.enter(256 * 2**20 + FRAMING_BYTES)
    answer = client.post("/api/v1/predict", **form(colour_png(1)))
    assert_problem(answer, 503, "overloaded")
    assert answer.headers["Retry-After"] == "1"
    leave()
    assert client.post("/api/v1/predict", **form(colour_png(1))).status_code == 200


def as_json(photo: bytes, **others: object) -> dict[str, object]:
    """Write a body of base64 in JSON."""
    document = {"image": base64.b64encode(photo).decode()} | others
    return {"data": json.dumps(document), "content_type": "application/json"}


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "DATA:;charset=x;Base64,"])
def test_base64_in_json_is_the_same_photo(client: FlaskClient, prefix: str) -> None:
    text = prefix + base64.b64encode(COCK).decode()
    answer = client.post("/api/v1/predict", json={"image": text})
    assert answer.status_code == 200
    assert answer.data == client.post("/api/v1/predict", data=COCK).data


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "declared as JSON"),
        (COCK, "declared as JSON"),
        (b"[" * 100_000, "must be an object"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b"{}", "must be an object"),
        (b'{"image":7}', "must be an object"),
        (b'{"photo":"AAAA"}', "unknown member 'photo'"),
        (b'{"image":"AAAA","top":5}', "unknown member 'top'"),
        (b'{"image":"AAAA","\\ud800":5}', "declared as JSON"),
        (b'{"image":"AAA"}', "not base64"),
        (b'{"image":"AA AA"}', "not base64"),
        (b'{"image":"AA-_"}', "not base64"),
        (b'{"image":"AAA=AAA="}', "not base64"),
        ('{"image":"照片"}'.encode(), "not base64"),
        (b'{"image":"data:image/png,AAAA"}', ";base64,"),
        (b'{"image":"data:"}', ";base64,"),
    ],
)
def test_bad_json_is_told_what_is_wrong(client: FlaskClient, body: bytes, text: str) -> None:
    answer = client.post("/api/v1/predict", data=body, content_type="application/json")
    assert text in assert_problem(answer, 400, "bad-request")


def test_empty_base64_is_no_photo(client: FlaskClient) -> None:
    assert_problem(client.post("/api/v1/predict", **as_json(b"")), 400, "no-photo")


def test_the_limit_holds_for_the_decoded_photo(make_settings: Callable[..., Settings]) -> None:
    # With room for no more than the largest request, that request is admitted.
    limits = {"max_upload_bytes": 300_000, "max_batch_bytes": 300_000, "max_waiting_bytes": 425_000}
    client = create_app(make_settings(**limits), fake_classifier()).test_client()
    assert client.post("/api/v1/predict", **as_json(COCK.ljust(300_000, b"\0"))).status_code == 200
    for size in (300_001, 600_000):
        answer = client.post("/api/v1/predict", **as_json(COCK.ljust(size, b"\0")))
        assert "300,000 bytes" in assert_problem(answer, 413, "too-large")


@pytest.mark.parametrize("route", ["heatmap", "embed"])
def test_every_route_for_one_photo_takes_json(client: FlaskClient, route: str) -> None:
    assert client.post(f"/api/v1/{route}", **as_json(COCK)).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/predict", "/api/v1/predict/batch"])
def test_rejected_photos_are_freed_with_their_answer(client: FlaskClient, path: str) -> None:
    # The frames of an exception hold the photo, and the exception itself: without care only the collector frees them.
    part = b'--a\r\nContent-Disposition: form-data; name="file"; filename="zeros.png"\r\n\r\n'
    body = part + COCK[:60].ljust(MEBI, b"\0") + b"\r\n--a--\r\n"

    def post() -> None:
        answer = client.post(path, data=body, content_type="multipart/form-data; boundary=a")
        assert b"too-costly" in answer.data

    post()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            post()
        assert tracemalloc.get_traced_memory()[0] < 3 * MEBI
    finally:
        tracemalloc.stop()
        gc.enable()
