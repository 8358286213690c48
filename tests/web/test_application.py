"""The application as a whole: what it is made of, and what every answer carries."""

from __future__ import annotations

from collections.abc import Callable

import flask
import pytest
from fakes import fake_classifier, make_classifier
from flask.testing import FlaskClient
from shapes import assert_problem

from app import create_app
from app.errors import SettingsError
from app.model import Model
from app.settings import Settings
from app.web.headers import SECURITY_HEADERS
from app.web.service import service_of


def test_creating_loads_nothing(make_settings: Callable[..., Settings]) -> None:
    def load() -> Model:
        raise AssertionError("A model was loaded.")

    assert service_of(create_app(make_settings(), make_classifier(load))).classifier.loaded_model is None


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPTHREE_MAX_UPLOAD_BYTES", "12345")
    assert service_of(create_app()).settings.max_upload_bytes == 12345


def test_bad_setting_stops_the_start_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPTHREE_MAX_UPLOAD_BYTES", "plenty")
    with pytest.raises(SettingsError, match="TOPTHREE_MAX_UPLOAD_BYTES"):
        create_app()


def test_json_is_compact_in_our_order_and_unescaped(app: flask.Flask) -> None:
    app.add_url_rule("/api/order", "order", lambda: flask.jsonify({"z": "猫", "a": [1, 2]}))
    assert app.test_client().get("/api/order").data == '{"z":"猫","a":[1,2]}\n'.encode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/?lang=zh"),
        ("POST", "/"),
        ("GET", "/static/style.css"),
        ("GET", "/robots.txt"),
        ("GET", "/none"),
        ("GET", "/api/v1/labels"),
        ("POST", "/api/v1/predict"),
        ("OPTIONS", "/api/v1/predict"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/api/fail"),
    ],
)
def test_every_answer_carries_the_security_headers(app: flask.Flask, method: str, path: str) -> None:
    app.add_url_rule("/api/fail", "fail", lambda: 1 / 0)
    with app.test_client().open(path, method=method) as answer:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_scripts_only_from_here_and_no_frames() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


FORWARDED = {"X-Forwarded-Prefix": "/cats", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "cats.example"}


def where(app: flask.Flask) -> str:
    """Ask the application under which address it thinks it was called."""
    app.add_url_rule("/api/where", "where", lambda: flask.request.url_root)
    return app.test_client().get("/api/where", headers=FORWARDED).text


def test_proxies_are_not_believed_unasked(app: flask.Flask) -> None:
    assert where(app) == "http://localhost/"


def test_trusted_proxy_is_believed(make_settings: Callable[..., Settings]) -> None:
    assert where(create_app(make_settings(trusted_proxies=1), fake_classifier())) == "https://cats.example/cats/"


def test_body_of_a_route_that_takes_none_is_limited(app: flask.Flask) -> None:
    app.add_url_rule("/api/echo", "echo", lambda: flask.request.get_data(as_text=True), methods=["POST"])
    client: FlaskClient = app.test_client()
    assert client.post("/api/echo", data=b"hello").text == "hello"
    assert_problem(client.post("/api/echo", data=bytes(100_000)), 413, "too-large")
