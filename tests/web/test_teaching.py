"""Projects of teaching through the API: documents, problems, and what only our own page may do."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
from bad_photos import MAKERS
from flask.testing import FlaskClient
from own_heads import own_model
from shapes import assert_problem, form, validator_of
from taught import colour_classifier, photo_of

from app import create_app
from app.classifier import Classifier
from app.model.own_models import list_names, list_versions, write_version
from app.settings import Settings
from app.teaching import publishing
from app.web.keys import Key, digest_of, new_token
from app.web.service import service_of
from app.web.teaching_schemas import MAX_EDIT

PROJECTS = "/api/v1/projects"
COLOURS = f"{PROJECTS}/colours"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
PREDICTIONS = ("predictions", "certainty")


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    """A classifier whose embeddings follow colours, with a folder of models."""
    return colour_classifier(tmp_path / "models")


@pytest.fixture
def make_app(
    make_settings: Callable[..., Settings], classifier: Classifier, tmp_path: Path
) -> Callable[..., flask.Flask]:
    """Make an application with teaching on."""

    def make(**settings: object) -> flask.Flask:
        folders = {"projects": tmp_path / "projects", "models": tmp_path / "models"}
        return create_app(make_settings(**({"teach": "on"} | folders | settings)), classifier)

    return make


def page_of(app: flask.Flask) -> FlaskClient:
    """Make a client whose requests come from our own page."""
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    return client


@pytest.fixture
def page(make_app: Callable[..., flask.Flask]) -> FlaskClient:
    """A client whose requests come from our own page."""
    return page_of(make_app())


@pytest.fixture
def taught(page: FlaskClient) -> FlaskClient:
    """A page with the project `colours`, of six photos each of red and blue."""
    assert page.put(COLOURS, json={}).status_code == 201
    for colour in ("red", "blue"):
        assert page.put(f"{COLOURS}/classes/{colour}", json={}).status_code == 201
        photos = [photo_of(colour, seed) for seed in range(6)]
        answer = page.post(f"{COLOURS}/classes/{colour}/photos", **form(*photos))
        assert [each["state"] for each in answer.json["photos"]] == ["added"] * 6
    return page


def digests(page: FlaskClient, query: str = "") -> list[str]:
    """List the digests of the photos of `colours`."""
    return [photo["sha256"] for photo in page.get(f"{COLOURS}/photos{query}").json["photos"]]


def test_projects_are_off_by_default(client: FlaskClient) -> None:
    assert_problem(client.get(PROJECTS), 404, "teaching-off")
    assert_problem(client.put(f"{COLOURS}/classes/red", headers=SAME_ORIGIN), 404, "teaching-off")


def test_project_is_made_and_listed(page: FlaskClient, tmp_path: Path) -> None:
    made = page.put(COLOURS, json={"keep_photos": True})
    assert (made.status_code, page.put(COLOURS, json={"keep_photos": True}).status_code) == (201, 200)
    assert made.json["keep_photos"]
    assert made.json["classes"] == [{"label": "~none", "label_zh": "", "photos": 0}]
    assert made.json["folder"] == str(tmp_path / "projects")
    (listed,) = page.get(PROJECTS).json["projects"]
    assert (listed["name"], listed["classes"], listed["photos"], listed["published"]) == ("colours", 0, 0, None)
    next((tmp_path / "projects" / "colours").glob("*.sqlite")).write_bytes(b"damaged" * 1000)
    assert page.get(PROJECTS).json["projects"][0]["problem"]["type"] == "/problems/projects-unavailable"
    assert page.delete(COLOURS).status_code == 204
    assert_problem(page.get(COLOURS), 404, "unknown-project")


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"keep": true}', b'{"keep_photos": 1}', b"\xff"])
def test_malformed_json_is_a_bad_request(page: FlaskClient, body: bytes) -> None:
    assert_problem(page.put(COLOURS, data=body, content_type="application/json"), 400, "bad-request")


def test_label_with_a_slash_or_beyond_ascii_is_a_class(page: FlaskClient) -> None:
    page.put(COLOURS)
    for label in ("AC%2FDC", "%E6%9D%AF%E5%AD%90", "a%20b"):
        assert page.put(f"{COLOURS}/classes/{label}").status_code == 201
        assert page.post(f"{COLOURS}/classes/{label}/photos", data=photo_of("red", 1)).status_code == 200
    assert [each["label"] for each in page.get(COLOURS).json["classes"]] == ["AC/DC", "杯子", "a b", "~none"]


@pytest.mark.parametrize("kind", ["raw", "form", "json", "zip"])
def test_photos_come_in_every_form(taught: FlaskClient, kind: str) -> None:
    photo, packed = photo_of("red", 50), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("folder/new.png", photo)
        archive.writestr("folder/notes.txt", "no photo")
    bodies = {
        "raw": {"data": photo, "content_type": "image/png"},
        "form": form(photo, name="new.png"),
        "json": {"json": {"image": base64.b64encode(photo).decode()}},
        "zip": {"data": packed.getvalue(), "content_type": "application/zip"},
    }
    answer = taught.post(f"{COLOURS}/classes/red/photos", **bodies[kind])
    assert answer.status_code == 200
    first, *others = answer.json["photos"]
    assert first["state"] == "added"
    assert first["file"] == {"raw": None, "form": "new.png", "json": None, "zip": "folder/new.png"}[kind]
    assert [each["problem"]["type"] for each in others] == ["/problems/unsupported-image"] * (kind == "zip")


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_hostile_and_odd_photos_fail_only_themselves(taught: FlaskClient, name: str) -> None:
    before = taught.get(COLOURS).json["photos"]
    answer = taught.post(f"{COLOURS}/classes/red/photos", **form(MAKERS[name](), photo_of("red", 60)))
    odd, good = answer.json["photos"]
    assert good["state"] == "added"
    assert odd.get("state") == "added" or odd["problem"]["status"] in (413, 415, 422)
    assert taught.get(COLOURS).json["photos"] == before + 1 + ("state" in odd)


def test_unknown_class_takes_no_photo(taught: FlaskClient) -> None:
    assert_problem(taught.post(f"{COLOURS}/classes/green/photos", data=photo_of("red", 1)), 404, "not-found")


def test_photos_are_listed_the_newest_first(taught: FlaskClient) -> None:
    answer = taught.get(f"{COLOURS}/photos?label=red&limit=2&offset=1").json
    assert answer["total"] == 6
    assert [each["label"] for each in answer["photos"]] == ["red", "red"]
    assert digests(taught)[6:] == digests(taught, "?label=red")
    assert_problem(taught.get(f"{COLOURS}/photos?limit=1001"), 400, "bad-parameter")


def test_many_photos_are_moved_and_deleted_at_once(taught: FlaskClient) -> None:
    red = digests(taught, "?label=red")
    moved = taught.patch(f"{COLOURS}/photos", json={"photos": red[:4], "label": "blue"})
    assert moved.json["moved"] == 4
    deleted = taught.delete(f"{COLOURS}/photos", json={"photos": red})
    assert (deleted.json["deleted"], deleted.json["revision"]) == (6, moved.json["revision"] + 1)
    assert taught.delete(f"{COLOURS}/photos/{digests(taught)[0]}").status_code == 204
    assert [row["photos"] for row in taught.get(COLOURS).json["classes"]] == [0, 5, 0]
    too_many = {"photos": ["0" * 64] * (MAX_EDIT + 1), "label": "red"}
    assert_problem(taught.patch(f"{COLOURS}/photos", json=too_many), 400, "bad-request")


@pytest.mark.parametrize("digest", ["0" * 64, "x", "A" * 64, "0" * 63])
def test_unknown_photo_is_not_found(taught: FlaskClient, digest: str) -> None:
    assert_problem(taught.delete(f"{COLOURS}/photos/{digest}"), 404, "not-found")
    assert_problem(taught.get(f"{COLOURS}/photos/{digest}/thumbnail"), 404, "not-found")


def test_thumbnail_is_a_small_jpeg_that_is_not_stored(taught: FlaskClient) -> None:
    answer = taught.get(f"{COLOURS}/photos/{digests(taught)[0]}/thumbnail")
    assert (answer.mimetype, answer.data[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    assert answer.headers["Cache-Control"] == "no-store"


def test_report_follows_each_change(taught: FlaskClient) -> None:
    first = taught.get(f"{COLOURS}/report")
    assert first.json["ready"]
    assert first.json["accuracy"]["of"] == first.json["groups"]
    assert "solve;dur=" in first.headers["Server-Timing"]
    revision = first.json["revision"]
    assert taught.get(f"{COLOURS}/report?after={revision}").status_code == 204
    taught.post(f"{COLOURS}/classes/~none/photos", data=photo_of("grey", 1))
    later = taught.get(f"{COLOURS}/report?after={revision}").json
    assert (later["revision"], later["classes"][2]["photos"]) == (revision + 1, 1)
    assert taught.get(f"{COLOURS}/photos?label=red").json["photos"][0]["probability"] is not None


def test_project_without_two_classes_cannot_answer(page: FlaskClient) -> None:
    page.put(COLOURS)
    report = page.get(f"{COLOURS}/report").json
    assert (report["ready"], report["accuracy"]) == (False, None)
    assert_problem(page.post(f"{COLOURS}/predict", data=photo_of("red", 1)), 409, "not-taught")
    assert_problem(page.post(f"{COLOURS}/publish"), 409, "not-taught")
    assert_problem(page.get(f"{COLOURS}/bundle"), 404, "not-found")


@pytest.mark.parametrize("colour", ["red", "blue", "grey"])
def test_published_version_answers_as_the_project(taught: FlaskClient, classifier: Classifier, colour: str) -> None:
    photo = photo_of(colour, 70)
    project = taught.post(f"{COLOURS}/predict?heatmap=1", data=photo).json
    published = taught.post(f"{COLOURS}/publish")
    assert (published.status_code, published.json) == (201, {"name": "colours", "version": 1})
    assert taught.get(COLOURS).json["published"] == 1
    classifier.refresh()
    served = taught.post("/api/v1/predict?heatmap=1&model=colours", data=photo).json
    assert [served[name] for name in PREDICTIONS] == [project[name] for name in PREDICTIONS]
    assert served["model"] == project["model"] | {"version": 1}


def test_trained_model_is_not_replaced_by_a_project(taught: FlaskClient, tmp_path: Path) -> None:
    write_version(tmp_path / "models", "colours", own_model("a", "b"))
    assert_problem(taught.post(f"{COLOURS}/publish"), 409, "name-taken")
    assert list_versions(tmp_path / "models", "colours") == [1]


def test_nothing_is_published_of_a_project_that_is_deleted(
    taught: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teaching = service_of(taught.application).teaching
    assert teaching is not None

    def write_and_delete(*values: Any) -> int:
        version = write_version(*values)
        teaching.delete("colours")
        return version

    monkeypatch.setattr(publishing, "write_version", write_and_delete)
    assert_problem(taught.post(f"{COLOURS}/publish"), 404, "unknown-project")
    assert list_names(tmp_path / "models") == []


def test_prediction_is_never_one_of_the_cache(taught: FlaskClient) -> None:
    photo = photo_of("red", 71)
    taught.post(f"{COLOURS}/predict", data=photo)
    assert "cache;desc=miss" in taught.post(f"{COLOURS}/predict", data=photo).headers["Server-Timing"]
    assert_problem(taught.post(f"{COLOURS}/predict?model=resnet18", data=photo), 400, "bad-parameter")


def test_file_of_a_project_is_opened_again(taught: FlaskClient) -> None:
    file = taught.get(f"{COLOURS}/file")
    assert file.headers["Content-Disposition"] == 'attachment; filename="colours.topthree.sqlite"'
    assert int(file.headers["Content-Length"]) == len(file.data)
    opened = taught.put(f"{PROJECTS}/again/file", data=file.data)
    assert (opened.status_code, opened.json["photos"]) == (201, 12)
    ours, theirs = (taught.get(f"{PROJECTS}/{name}/report").json for name in ("colours", "again"))
    assert theirs["accuracy"] == ours["accuracy"]
    assert_problem(taught.put(f"{COLOURS}/file", data=file.data), 409, "name-taken")
    assert_problem(taught.put(f"{PROJECTS}/other/file", data=b"no project"), 422, "bad-project-file")
    assert_problem(taught.put(f"{PROJECTS}/other/file", data=file.data[:5000]), 422, "bad-project-file")
    assert [each["name"] for each in taught.get(PROJECTS).json["projects"]] == ["again", "colours"]


def test_full_folder_is_507(make_app: Callable[..., flask.Flask]) -> None:
    empty = page_of(make_app())
    empty.put(COLOURS)
    empty.put(f"{COLOURS}/classes/red")
    page = page_of(make_app(teach_max_bytes=empty.get(COLOURS).json["bytes"] + 12_000))
    answers = [page.post(f"{COLOURS}/classes/red/photos", data=photo_of("red", seed)) for seed in range(20)]
    full = next(answer for answer in answers if answer.status_code != 200)
    assert_problem(full, 507, "project-full")
    assert page.get(COLOURS).json["photos"] == sum(answer.status_code == 200 for answer in answers)


ORIGINS = [
    ({}, 403),
    ({"Origin": "http://localhost"}, 201),
    ({"Origin": "http://localhost:80"}, 201),
    ({"Origin": "http://localhost:8080"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://[::"}, 403),
    ({"Sec-Fetch-Site": "same-origin"}, 201),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "none"}, 403),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), ORIGINS)
def test_writes_come_from_our_own_page(
    make_app: Callable[..., flask.Flask], headers: dict[str, str], status: int
) -> None:
    client = make_app().test_client()
    answer = client.put(COLOURS, headers=headers)
    assert answer.status_code == status
    assert len(client.get(PROJECTS).json["projects"]) == (status == 201)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("put", COLOURS),
        ("delete", COLOURS),
        ("put", f"{COLOURS}/classes/red"),
        ("delete", f"{COLOURS}/classes/red"),
        ("post", f"{COLOURS}/classes/red/photos"),
        ("patch", f"{COLOURS}/photos"),
        ("delete", f"{COLOURS}/photos"),
        ("delete", f"{COLOURS}/photos/{'0' * 64}"),
        ("post", f"{COLOURS}/predict"),
        ("post", f"{COLOURS}/publish"),
        ("put", f"{COLOURS}/file"),
    ],
)
def test_no_write_of_another_site_passes(make_app: Callable[..., flask.Flask], method: str, path: str) -> None:
    client = make_app(cors_origins="https://evil.example").test_client()
    answer = client.open(path, method=method, headers={"Origin": "https://evil.example"})
    assert_problem(answer, 403, "foreign-origin")


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("none", 200)])
@pytest.mark.parametrize("path", ["", "/report", "/file"])
def test_reads_that_another_site_asks_for_cost_nothing(taught: FlaskClient, path: str, site: str, status: int) -> None:
    assert taught.get(f"{COLOURS}{path}", headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("teach.example", 200),
        ("TEACH.example:443", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.7:8000", 403),
    ],
)
def test_host_is_ours(make_app: Callable[..., flask.Flask], host: str, status: int) -> None:
    client = make_app(hosts="teach.example").test_client()
    assert client.get(PROJECTS, headers={"Host": host}).status_code == status


def test_key_needs_the_right(make_app: Callable[..., flask.Flask], tmp_path: Path) -> None:
    tokens = {name: new_token() for name in ("reader", "teacher")}
    rights = {"reader": (), "teacher": ("teach",)}
    file = tmp_path / "keys"
    file.write_text("\n".join(Key(name, True, digest_of(tokens[name]), rights[name]).as_line() for name in tokens))
    client = make_app(api_keys_file=file).test_client()
    headers = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
    assert_problem(client.get(PROJECTS), 401, "unauthorized")
    assert_problem(client.get(PROJECTS, headers=headers["reader"]), 403, "no-right")
    assert_problem(client.put(COLOURS, headers=headers["reader"] | SAME_ORIGIN), 403, "no-right")
    # A script needs no origin, since it has a key; a page of another site never passes.
    assert client.put(COLOURS, headers=headers["teacher"]).status_code == 201
    foreign = headers["teacher"] | {"Origin": "https://evil.example"}
    assert_problem(client.delete(COLOURS, headers=foreign), 403, "foreign-origin")
    assert client.post("/api/v1/predict", headers=headers["reader"], data=photo_of("red", 1)).status_code == 200


def test_each_photo_counts_against_the_rate_limit(make_app: Callable[..., flask.Flask]) -> None:
    page = page_of(make_app(rate_limit="20/minute"))
    page.put(COLOURS)
    page.put(f"{COLOURS}/classes/red")
    page.post(f"{COLOURS}/classes/red/photos", **form(*(photo_of("red", seed) for seed in range(20))))
    assert_problem(page.get(COLOURS), 429, "rate-limited")


def test_answers_are_of_the_shape_that_is_promised(taught: FlaskClient) -> None:
    document = taught.get("/api/v1/openapi.json").json
    digest = digests(taught)[0]
    asked = [
        ("get", "", "", {}),
        ("get", "/{name}", "/colours", {}),
        ("put", "/{name}/classes/{label}", "/colours/classes/green", {"json": {"label_zh": "绿"}}),
        ("post", "/{name}/classes/{label}/photos", "/colours/classes/red/photos", form(photo_of("blue", 0), b"x")),
        ("get", "/{name}/photos", "/colours/photos", {}),
        ("patch", "/{name}/photos", "/colours/photos", {"json": {"photos": [digest], "label": "red"}}),
        ("delete", "/{name}/photos", "/colours/photos", {"json": {"photos": [digest]}}),
        ("get", "/{name}/report", "/colours/report", {}),
        ("post", "/{name}/predict", "/colours/predict", {"data": photo_of("red", 2)}),
        ("post", "/{name}/publish", "/colours/publish", {}),
    ]
    for method, path, address, body in asked:
        answer = taught.open(PROJECTS + address, method=method, **body)
        responses = document["paths"][PROJECTS + path][method]["responses"]
        schema = responses[str(answer.status_code)]["content"][answer.mimetype]["schema"]
        validator_of(document, schema).validate(answer.json)


def test_kept_in_memory_is_nothing_of_a_deleted_project(taught: FlaskClient) -> None:
    taught.get(f"{COLOURS}/report")
    teaching = service_of(taught.application).teaching
    assert teaching is not None
    assert len(teaching._remembered) == 1
    taught.delete(COLOURS)
    assert len(teaching._remembered) == 0
