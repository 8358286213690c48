"""Search in an index through the API: what it answers, whom it answers, and what becomes of photos that leave it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import flask
import msgspec
import pytest
from fakes import colour_png, fake_model, make_classifier
from flask.testing import FlaskClient
from indexes import ColourEngine, index_photos
from PIL import Image
from shapes import assert_problem, form, validator_of

from app import create_app
from app.classifier import Classifier
from app.errors import IndexProblem
from app.model.engines import Inference, Pixels
from app.processes.readiness import Readiness
from app.search.manifest import read_manifest, write_manifest
from app.search.writer import Writer
from app.settings import Settings
from app.web.keys import Key, digest_of, new_token
from app.web.probes import HALT_SERVICE, warm_up_in_background

SEARCH = "/api/v1/search"
PATIENCE_SECONDS = 60
THUMBNAIL = f"{SEARCH}/thumbnails/0"
PHOTOS = {
    "trips/1/red.png": colour_png(250, 10, 10),
    "trips/rose.png": colour_png(200, 60, 60),
    "blue.png": colour_png(10, 10, 250, (500, 40)),
}


@pytest.fixture
def classifier() -> Classifier:
    """A classifier whose embeddings follow colours."""
    return make_classifier(lambda: fake_model(ColourEngine()))


@pytest.fixture
def index(tmp_path: Path, classifier: Classifier) -> Path:
    """The folder of an index of `PHOTOS`."""
    folder = tmp_path / "lib"
    index_photos(folder, classifier, PHOTOS)
    return folder


@pytest.fixture
def make_app(
    make_settings: Callable[..., Settings], classifier: Classifier, index: Path
) -> Callable[..., flask.Flask]:
    """Make an application that searches the index."""
    return lambda **settings: create_app(make_settings(**({"index": index} | settings)), classifier)


@pytest.fixture
def client(make_app: Callable[..., flask.Flask]) -> FlaskClient:
    """A client of a service with the index."""
    return make_app().test_client()


def search(client: FlaskClient, photo: bytes = PHOTOS["trips/1/red.png"], query: str = "", **options: Any) -> Any:
    """Search for photos that look like a photo."""
    return client.post(SEARCH + query, **form(photo), **options)


def make_other_model(index: Path) -> str:
    """Have an index say that another model made it, and return that model's name."""
    manifest = read_manifest(index)
    assert manifest is not None
    embedding = msgspec.structs.replace(manifest.embedding, model="another")
    write_manifest(index, msgspec.structs.replace(manifest, embedding=embedding))
    return "another"


def test_an_index_replaced_during_a_search_is_checked(make_settings: Callable[..., Settings], index: Path) -> None:
    class Replacing(ColourEngine):
        """Let another model make the index while a photo, which is not all black, is computed."""

        def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
            if batch.any():
                make_other_model(index)
            return super().infer(batch, alone=alone)

    app = create_app(make_settings(index=index), make_classifier(lambda: fake_model(Replacing())))
    assert_problem(search(app.test_client()), 503, "index-unavailable")


def test_the_nearest_photos_come_first_by_name(client: FlaskClient) -> None:
    answer = search(client)
    assert answer.status_code == 200
    assert [found["name"] for found in answer.json["similar"]] == ["red.png", "rose.png", "blue.png"]
    assert answer.json["similar"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert (answer.json["photos"], answer.json["image"]["width"]) == (3, 300)
    assert "trips" not in answer.text
    assert "infer" in answer.headers["Server-Timing"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_thumbnails_are_where_the_answer_says(client: FlaskClient) -> None:
    for found in search(client).json["similar"]:
        answer = client.get(urljoin(SEARCH, found["thumbnail"]))
        assert answer.headers["Content-Type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.data)) as thumbnail:
            assert max(thumbnail.size) == 96
            shape, colour = thumbnail.width > 2 * thumbnail.height, thumbnail.getpixel((5, 2))
        assert (shape, colour[2] > colour[0]) == ((True, True) if found["name"] == "blue.png" else (False, False))


@pytest.mark.parametrize(("query", "count"), [("", 3), ("?count=1", 1), ("?count=100", 3)])
def test_the_count_bounds_the_answer(client: FlaskClient, query: str, count: int) -> None:
    assert len(search(client, query=query).json["similar"]) == count


@pytest.mark.parametrize("query", ["?count=0", "?count=101", "?count=x", "?top=3", "?count=1&count=2"])
def test_a_parameter_that_cannot_be_used_is_rejected(client: FlaskClient, query: str) -> None:
    assert_problem(search(client, query=query), 400, "bad-parameter")


@pytest.mark.parametrize("row", ["3", "-1", "x", "٣", "99999999999999999999"])
def test_a_row_that_does_not_exist_is_not_found(client: FlaskClient, row: str) -> None:
    assert_problem(client.get(f"{SEARCH}/thumbnails/{row}"), 404, "not-found")


def test_a_file_that_is_no_photo_is_the_usual_problem(client: FlaskClient) -> None:
    assert_problem(search(client, b"This is text."), 415, "unsupported-image")


def test_without_an_index_there_is_nothing_to_search(app: flask.Flask) -> None:
    client = app.test_client()
    assert "TOPTHREE_INDEX" in assert_problem(search(client), 404, "no-index")
    assert_problem(client.get(THUMBNAIL), 404, "no-index")


def test_a_photo_that_was_removed_is_found_no_more(client: FlaskClient, index: Path) -> None:
    before = search(client).json["similar"]
    with closing(Writer(index)) as writer:
        assert writer.remove(["trips/1"]) == 1
    assert [found["name"] for found in search(client).json["similar"]] == ["rose.png", "blue.png"]
    for found in before:
        assert_problem(client.get(urljoin(SEARCH, found["thumbnail"])), 404, "not-found")


def test_an_index_that_is_damaged_later_is_said_once(
    client: FlaskClient, index: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (index / "index.json").write_text("{")
    for _ in range(2):
        detail = assert_problem(search(client), 503, "index-unavailable")
        assert_problem(client.get(THUMBNAIL), 503, "index-unavailable")
    assert str(index) not in detail
    assert [record.message for record in caplog.records if "damaged" in record.message] == [
        f"The index cannot be searched: The index {index} is damaged: index.json cannot be read."
    ]


def test_an_index_of_another_model_is_not_searched(make_app: Callable[..., flask.Flask], index: Path) -> None:
    make_other_model(index)
    assert_problem(search(make_app().test_client()), 503, "index-unavailable")


def test_an_index_of_another_model_stops_the_start(
    make_app: Callable[..., flask.Flask], index: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = make_other_model(index)
    halts: list[int] = []
    app = make_app()
    warm_up_in_background(app, Readiness(planned=1), slot=0, halt=halts.append)
    (warm_up,) = (thread for thread in threading.enumerate() if thread.name == "warm-up")
    warm_up.join(PATIENCE_SECONDS)
    assert halts == [HALT_SERVICE]
    assert f"{index} is the index of another model: model is {name} there and resnet18 now." in caplog.text
    assert app.test_client().get("/readyz").status_code == 503


def test_an_index_that_is_missing_stops_the_start(make_app: Callable[..., flask.Flask], tmp_path: Path) -> None:
    with pytest.raises(IndexProblem, match="is not an index"):
        make_app(index=tmp_path)


def test_each_key_may_search_and_see_thumbnails(make_app: Callable[..., flask.Flask], tmp_path: Path) -> None:
    token = new_token()
    keys = tmp_path / "keys.txt"
    keys.write_text(Key("ann", True, digest_of(token)).as_line() + "\n", encoding="utf-8")
    client = make_app(api_keys_file=keys).test_client()
    assert_problem(search(client), 401, "unauthorized")
    assert_problem(client.get(THUMBNAIL), 401, "unauthorized")
    headers = {"Authorization": f"Bearer {token}", "Host": "photos.example"}
    assert search(client, headers=headers).status_code == 200
    assert client.get(THUMBNAIL, headers=headers).status_code == 200


def test_without_keys_only_our_host_is_answered(make_app: Callable[..., flask.Flask]) -> None:
    headers = {"Host": "rebound.example"}
    client = make_app().test_client()
    assert_problem(search(client, headers=headers), 403, "foreign-origin")
    assert_problem(client.get(THUMBNAIL, headers=headers), 403, "foreign-origin")
    assert search(make_app(hosts="rebound.example").test_client(), headers=headers).status_code == 200


def test_searches_count_against_the_rate(make_app: Callable[..., flask.Flask]) -> None:
    client = make_app(rate_limit="2/hour").test_client()
    assert [search(client).status_code, client.get(THUMBNAIL).status_code] == [200, 200]
    assert_problem(search(client), 429, "rate-limited")


def test_answers_are_as_the_document_says(client: FlaskClient) -> None:
    document = client.get("/api/v1/openapi.json").json
    for answer in (search(client), search(client, b"text"), search(client, query="?count=0")):
        responses = document["paths"][SEARCH]["post"]["responses"]
        schema = responses[str(answer.status_code)]["content"][answer.mimetype]["schema"]
        validator_of(document, schema).validate(answer.json)


@pytest.mark.parametrize("has_index", [True, False])
def test_the_page_offers_it_where_there_is_an_index(
    make_app: Callable[..., flask.Flask], app: flask.Flask, has_index: bool
) -> None:
    page = (make_app() if has_index else app).test_client().get("/").text
    found = [part in page for part in ("Photos like this", "js.alike.found", "problem.index-unavailable")]
    assert found == [has_index] * 3
    assert "problem.project-full" not in page
