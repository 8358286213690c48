"""Pages of other origins: only listed ones may call, and the others learn nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient
from shapes import form

from app import create_app
from app.settings import Settings

FRIEND = "https://photos.example:8443"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
def client(make_settings: Callable[..., Settings]) -> FlaskClient:
    """A client of an application that allows two origins."""
    settings = make_settings(cors_origins=f"{FRIEND}, https://other.example")
    return create_app(settings, fake_classifier()).test_client()


def preflight(client: FlaskClient, origin: str, path: str = "/api/v1/predict"):
    return client.options(path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})


def test_a_listed_origin_may_call_and_read(client: FlaskClient) -> None:
    asked = preflight(client, FRIEND)
    assert (asked.status_code, asked.headers[ALLOW]) == (204, FRIEND)
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    answer = client.post("/api/v1/predict", **form(colour_png(1)), headers={"Origin": FRIEND})
    assert answer.headers[ALLOW] == FRIEND
    assert "Server-Timing" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://photos.example", "http://photos.example:8443", "null", f"{FRIEND}.evil"])
def test_no_other_origin_may(client: FlaskClient, origin: str) -> None:
    for answer in (preflight(client, origin), client.get("/api/v1/labels", headers={"Origin": origin})):
        assert ALLOW not in answer.headers
        assert "Origin" in answer.vary


def test_errors_can_be_read_too(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict", data=b"x", headers={"Origin": FRIEND})
    assert answer.status_code == 415
    assert answer.headers[ALLOW] == FRIEND


def test_a_preflight_needs_no_key(make_settings: Callable[..., Settings], tmp_path) -> None:
    (tmp_path / "keys.txt").touch()
    settings = make_settings(cors_origins=FRIEND, api_keys_file=tmp_path / "keys.txt")
    client = create_app(settings, fake_classifier()).test_client()
    assert preflight(client, FRIEND).status_code == 204
    assert client.get("/api/v1/model", headers={"Origin": FRIEND}).headers[ALLOW] == FRIEND


def test_no_other_origin_may_read_the_page(client: FlaskClient) -> None:
    assert ALLOW not in client.get("/", headers={"Origin": FRIEND}).headers


def test_without_the_setting_no_other_origin_may_call(make_settings: Callable[..., Settings]) -> None:
    client = create_app(make_settings(), fake_classifier()).test_client()
    assert ALLOW not in client.get("/api/v1/labels", headers={"Origin": FRIEND}).headers
