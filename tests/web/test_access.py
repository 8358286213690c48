"""Which clients may call: all by default, and those with a key if there is a file of keys."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient
from shapes import assert_problem, form

from app import create_app
from app.errors import KeysError
from app.settings import Settings
from app.web.access import announce
from app.web.keys import Key, digest_of
from app.web.service import service_of

ALICE, MALLORY = "tt_alice", "tt_mallory"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """A file with a key that is enabled and one that is not."""
    lines = [Key("alice", True, digest_of(ALICE)).as_line(), Key("mallory", False, digest_of(MALLORY)).as_line()]
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def guarded(make_settings: Callable[..., Settings], keys_file: Path) -> FlaskClient:
    """A client of an application that asks for keys."""
    return create_app(make_settings(api_keys_file=keys_file), fake_classifier()).test_client()


def bearer(token: str) -> dict[str, str]:
    """Write the header that carries a key."""
    return {"Authorization": f"Bearer {token}"}


def test_without_a_file_of_keys_no_key_is_needed(client: FlaskClient) -> None:
    assert client.post("/api/v1/predict", **form(colour_png(1))).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_valid_key_is_accepted(guarded: FlaskClient, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {ALICE}"}
    assert guarded.post("/api/v1/predict", **form(colour_png(1)), headers=headers).status_code == 200
    assert guarded.get("/api/v1/labels", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["predict", "predict/batch", "heatmap", "nothing-here"])
def test_every_other_token_is_refused(guarded: FlaskClient, path: str) -> None:
    answer = guarded.post(f"/api/v1/{path}", **form(colour_png(1)))
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="topthree"'


@pytest.mark.parametrize(
    "headers",
    [bearer("tt_unknown"), bearer("ü"), bearer("a" * 5000), {"Authorization": "Basic dXNlcjp0dF9hbGljZQ=="}, {}],
    ids=["unknown", "unicode", "long", "basic", "none"],
)
def test_an_unknown_key_is_a_401(guarded: FlaskClient, headers: dict[str, str]) -> None:
    assert_problem(guarded.get("/api/v1/model", headers=headers), 401, "unauthorized")


def test_a_disabled_key_is_a_403_that_says_so(guarded: FlaskClient) -> None:
    answer = guarded.get("/api/v1/model", headers=bearer(MALLORY))
    assert "disabled" in assert_problem(answer, 403, "forbidden")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_key_in_the_address_is_not_taken(guarded: FlaskClient) -> None:
    assert_problem(guarded.get(f"/api/v1/model?key={ALICE}&access_token={ALICE}"), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/", "/healthz", "/problems/unauthorized", "/robots.txt"])
def test_public_routes_need_no_key(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_the_form_takes_its_key_as_a_field(guarded: FlaskClient) -> None:
    page = guarded.get("/").text
    assert '<input id="key" type="password" name="key" required' in page
    fields = {"file": (io.BytesIO(colour_png(251)), "a.png")}
    assert guarded.post("/", data={"key": ALICE, **fields}).status_code == 200


@pytest.mark.parametrize(("token", "status"), [("tt_unknown", 401), (MALLORY, 403), ("", 401)])
def test_the_form_turns_others_away(guarded: FlaskClient, token: str, status: int) -> None:
    fields = {"file": (io.BytesIO(colour_png(251)), "a.png"), "key": token}
    answer = guarded.post("/", data=fields)
    assert answer.status_code == status
    assert answer.mimetype == "text/html"


def test_new_keys_are_used_as_a_whole(guarded: FlaskClient, keys_file: Path) -> None:
    ring = service_of(guarded.application).keys
    keys_file.write_text(Key("bob", True, digest_of("tt_bob")).as_line(), encoding="utf-8")
    fresh = ring.read()
    assert guarded.get("/api/v1/model", headers=bearer(ALICE)).status_code == 200
    ring.use(fresh)
    assert guarded.get("/api/v1/model", headers=bearer(ALICE)).status_code == 401
    assert guarded.get("/api/v1/model", headers=bearer("tt_bob")).status_code == 200
    keys_file.write_text("broken", encoding="utf-8")
    with pytest.raises(KeysError, match="line 1"):
        ring.read()
    assert guarded.get("/api/v1/model", headers=bearer("tt_bob")).status_code == 200


def test_a_broken_file_of_keys_stops_the_start(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("alice enabled", encoding="utf-8")
    with pytest.raises(KeysError, match="line 1"):
        create_app(make_settings(api_keys_file=tmp_path / "keys.txt"), fake_classifier())


def test_no_key_is_ever_logged(guarded: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for token in (ALICE, MALLORY, "tt_unknown"):
        guarded.get("/api/v1/model", headers=bearer(token))
    assert not any(token in caplog.text for token in (ALICE, MALLORY, "tt_unknown"))


def test_without_the_page_the_api_stays(make_settings: Callable[..., Settings]) -> None:
    client = create_app(make_settings(page="off"), fake_classifier()).test_client()
    assert client.get("/").status_code == 404
    assert client.post("/", **form(colour_png(1))).status_code == 404
    assert client.post("/api/v1/predict", **form(colour_png(1))).status_code == 200
    assert client.get("/problems/too-large").status_code == 200


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"host": "0.0.0.0"}, "anyone who can reach this address can use the service"),
        ({"host": "0.0.0.0", "api_keys_file": "keys"}, "unless a proxy adds TLS"),
        ({"api_keys_file": "keys"}, "Keys: 1 of 2"),
        ({"rate_limit": "9/minute", "workers": 2}, "by each of 2 processes on its own"),
    ],
)
def test_the_log_says_which_clients_may_call(
    make_settings: Callable[..., Settings],
    keys_file: Path,
    caplog: pytest.LogCaptureFixture,
    values: dict[str, object],
    said: str,
) -> None:
    caplog.set_level(logging.INFO)
    announce(make_settings(**{k: keys_file if v == "keys" else v for k, v in values.items()}))
    assert said in caplog.text
