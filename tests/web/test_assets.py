"""Static files: addressed by content, compressed, kept for a year, and small together."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import flask
import pytest
from flask.testing import FlaskClient

from app.settings import ROOT
from app.web.assets import Assets

FIRST_VIEW_BYTES = 60 * 1024


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="\./(static/[^"]+)"', page)


def test_everything_the_page_loads_has_a_versioned_address(client: FlaskClient) -> None:
    found = addresses(client.get("/").text)
    assert len(found) > 15
    for address in found:
        response = client.get(f"/{address}")
        assert response.status_code == 200, address
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_no_file_is_loaded_without_its_version(client: FlaskClient) -> None:
    page = client.get("/").text
    assert set(re.findall(r'(?:src|href)="([^"]*static/[^"]+)"', page)) == {"./" + path for path in addresses(page)}


def test_the_first_view_is_small(client: FlaskClient) -> None:
    headers = {"Accept-Encoding": "gzip"}
    page = client.get("/", headers=headers)
    # Thumbnails of the samples may come later; counting them leaves room.
    files = {path: len(client.get(f"/{path}", headers=headers).data) for path in set(addresses(client.get("/").text))}
    assert len(page.data) + sum(files.values()) <= FIRST_VIEW_BYTES, files


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("style.css", "text/css; charset=utf-8"),
        ("boot.js", "text/javascript; charset=utf-8"),
        ("js/main.js", "text/javascript; charset=utf-8"),
        ("favicon.svg", "image/svg+xml"),
        ("samples/cat.webp", "image/webp"),
        ("samples/CREDITS.md", "text/plain; charset=utf-8"),
    ],
)
def test_each_kind_of_file_is_declared(client: FlaskClient, name: str, content_type: str) -> None:
    assert client.get(f"/static/any/{name}").headers["Content-Type"] == content_type


def test_text_is_compressed_if_the_client_accepts_it(client: FlaskClient) -> None:
    plain = client.get("/static/any/style.css")
    packed = client.get("/static/any/style.css", headers={"Accept-Encoding": "br, gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert "accept-encoding" in plain.vary
    assert "accept-encoding" in packed.vary


def test_pictures_are_not_compressed_again(client: FlaskClient) -> None:
    response = client.get("/static/any/samples/cat.webp", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in response.headers


def test_pages_are_compressed_and_probes_are_not(client: FlaskClient) -> None:
    headers = {"Accept-Encoding": "gzip"}
    page = client.get("/", headers=headers)
    assert page.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(page.data) == client.get("/").data
    assert "Content-Encoding" not in client.get("/healthz", headers=headers).headers


def test_gzip_that_is_refused_is_not_sent(client: FlaskClient) -> None:
    for address in ("/", "/static/any/style.css"):
        response = client.get(address, headers={"Accept-Encoding": "gzip;q=0, identity"})
        assert "Content-Encoding" not in response.headers


def test_an_outdated_address_gets_the_current_file_uncached(client: FlaskClient) -> None:
    assert client.get("/static/0000000000000000/style.css").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["missing.css", "../app/web/pages.py", "%2e%2e/app/pages.py", "js/"])
def test_a_missing_file_is_not_found(client: FlaskClient, name: str) -> None:
    assert client.get(f"/static/any/{name}").status_code == 404


def test_the_version_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a{}")
    (tmp_path / "b.css").write_text("b{}")
    first = Assets(tmp_path)
    (tmp_path / "b.css").write_text("b{color:red}")
    assert Assets(tmp_path).path("a.css") != first.path("a.css")


def test_a_template_cannot_name_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"gone\.css"):
        Assets(tmp_path).path("gone.css")


def test_samples_are_small_and_credited(app: flask.Flask) -> None:
    folder = ROOT / "static" / "samples"
    photos = sorted(folder.glob("*.webp"))
    assert len(photos) == 6
    assert all(path.stat().st_size <= 20 * 1024 for path in photos)
    credit = (folder / "CREDITS.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in credit for name in ("cat", "coffee", "rocket"))
