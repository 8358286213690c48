"""The HTTP contract, version 1, as a script's author sees it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable

import flask
import pytest
from fakes import FakeEngine, colour_png, encode, fake_classifier, make_classifier
from flask.testing import FlaskClient
from pictures import cat
from PIL import ExifTags, Image
from shapes import assert_problem, assert_problem_document, form
from werkzeug.test import TestResponse

from app import create_app
from app.errors import WeightsError
from app.model import Model
from app.model.records import RECORDS
from app.settings import Settings
from app.web.service import service_of

RESNET18 = RECORDS["resnet18"]

DALMATIAN = colour_png(251, 7, 80)
COCK = colour_png(7, 251, 80)
GROUSE = colour_png(80, 7, 251)
FORM = "multipart/form-data"
NO_PART = {"data": b"--x--\r\n", "content_type": f"{FORM}; boundary=x"}
MODEL = (
    '{"name":"resnet18","display_name":"ResNet-18","weights_sha256":"'
    + RESNET18.sha256
    + '","engine":"fake","precision":"fp32","fallback":false}'
)


def upload(client: FlaskClient, *photos: bytes, to: str = "predict", name: str = "a.png") -> TestResponse:
    """Send photos as parts named `file`."""
    return client.post(f"/api/v1/{to}", **form(*photos, name=name))


def class_ids(answer: dict[str, list[dict[str, int]]]) -> list[int]:
    """Name the predicted classes, the likeliest first."""
    return [prediction["class_id"] for prediction in answer["predictions"]]


def test_answer_is_this_very_text(client: FlaskClient) -> None:
    digest = hashlib.sha256(DALMATIAN).hexdigest()
    expected = (
        '{"predictions":['
        '{"rank":1,"class_id":251,"wnid":"n02110341","label":"dalmatian","label_zh":"斑点狗",'
        '"label_gloss":null,"confidence":0.665241,"probability":null},'
        '{"rank":2,"class_id":7,"wnid":"n01514668","label":"cock","label_zh":"公鸡","label_gloss":"rooster",'
        '"confidence":0.244728,"probability":null},'
        '{"rank":3,"class_id":80,"wnid":"n01795545","label":"black grouse","label_zh":"黑琴鸡",'
        '"label_gloss":null,"confidence":0.090031,"probability":null}'
        f'],"image":{{"width":300,"height":260,"format":"PNG","sha256":"{digest}"}},"certainty":null,"model":{MODEL}}}\n'
    )
    assert upload(client, DALMATIAN).data == expected.encode()


def test_same_request_has_the_same_body(client: FlaskClient) -> None:
    assert upload(client, COCK).data == upload(client, COCK).data


def test_results_are_json_and_not_to_be_stored(client: FlaskClient) -> None:
    answer = upload(client, COCK)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "image/x-whatever", "IMAGE/PNG; charset=binary", "application/octet-stream", None],
)
def test_raw_body_answers_as_the_form_does(client: FlaskClient, content_type: str | None) -> None:
    answer = client.post("/api/v1/predict", data=DALMATIAN, content_type=content_type)
    assert answer.data == upload(client, DALMATIAN).data


@pytest.mark.parametrize("content_type", ["text/plain", "video/mp4", "multipart/mixed", "nonsense"])
def test_other_content_types_are_refused(client: FlaskClient, content_type: str) -> None:
    answer = client.post("/api/v1/predict", data=DALMATIAN, content_type=content_type)
    assert "multipart/form-data" in assert_problem(answer, 415, "unsupported-content-type")


def test_archive_is_shown_the_way_to_the_batch(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict", data=DALMATIAN, content_type="application/zip")
    assert "predict/batch" in assert_problem(answer, 415, "unsupported-content-type")


@pytest.mark.parametrize("path", ["model", "labels"])
def test_waiting_for_the_model_counts_against_admission(make_settings: Callable[..., Settings], path: str) -> None:
    app = create_app(make_settings(), fake_classifier())
    admission = service_of(app).admission
    while admission.refusal_if_full() is None:
        admission.enter(0)
    assert_problem(app.test_client().get(f"/api/v1/{path}"), 503, "overloaded")
    service_of(app).classifier.warm_up()
    assert app.test_client().get(f"/api/v1/{path}").status_code == 200


def test_curls_default_form_type_is_told_the_right_flag(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict", data=DALMATIAN, content_type="application/x-www-form-urlencoded")
    detail = assert_problem(answer, 415, "unsupported-content-type")
    assert "curl -F file=@photo.jpg" in detail
    assert "--data-binary @photo.jpg -H 'Content-Type: image/jpeg'" in detail


@pytest.mark.parametrize(("query", "count"), [("", 3), ("?top=1", 1), ("?top=5", 5), ("?top=1000", 1000)])
def test_top_says_how_many(client: FlaskClient, query: str, count: int) -> None:
    answer = upload(client, DALMATIAN, to=f"predict{query}").json
    assert [prediction["rank"] for prediction in answer["predictions"]] == list(range(1, count + 1))


def test_only_the_first_ten_answers_have_heat_maps(client: FlaskClient) -> None:
    predictions = upload(client, DALMATIAN, to="predict?top=1000&heatmap=1").json["predictions"]
    assert [prediction["rank"] for prediction in predictions if "heatmap" in prediction] == list(range(1, 11))
    assert len(predictions) == 1000


@pytest.mark.parametrize("path", ["predict", "predict/batch"])
@pytest.mark.parametrize("top", ["0", "abc", "", "-1", "1.5", "1e2", "1001", "٣", "9" * 5000, "3 ", "0x3"])
def test_bad_top_is_refused_with_its_range(client: FlaskClient, path: str, top: str) -> None:
    answer = client.post(f"/api/v1/{path}", query_string={"top": top}, **form(COCK))
    assert assert_problem(answer, 400, "bad-parameter") == "The parameter 'top' must be a whole number from 1 to 1000."


def test_model_without_heat_maps_leaves_them_out(make_settings: Callable[..., Settings]) -> None:
    engine = FakeEngine()
    engine.head = None
    client = create_app(make_settings(), fake_classifier(engine)).test_client()
    assert client.get("/api/v1/model").json["heatmap"] is None
    answer = upload(client, DALMATIAN, to="predict?heatmap=1").json
    assert [prediction for prediction in answer["predictions"] if "heatmap" in prediction] == []
    detail = assert_problem(upload(client, DALMATIAN, to="heatmap"), 422, "no-heat-map")
    assert detail == "The model resnet18 has no heat maps."


def test_model_tells_the_size_of_heat_maps(client: FlaskClient) -> None:
    assert client.get("/api/v1/model").json["heatmap"] == {"rows": 7, "columns": 7}


def test_heatmap_comes_on_request_with_the_crop_it_covers(client: FlaskClient) -> None:
    answer = upload(client, DALMATIAN, to="predict?heatmap=1").json
    grids = [prediction.pop("heatmap") for prediction in answer["predictions"]]
    crop = answer["image"].pop("crop")
    assert answer == upload(client, DALMATIAN, to="predict?heatmap=0").json
    assert [[len(row) for row in grid] for grid in grids] == [[7] * 7] * 3
    assert all(0 <= value <= 1 for grid in grids for row in grid for value in row)
    assert list(crop) == ["left", "top", "right", "bottom"]
    assert 0 < crop["left"] < crop["right"] < 1


@pytest.mark.parametrize("value", ["2", "yes", ""])
def test_bad_heatmap_is_refused(client: FlaskClient, value: str) -> None:
    assert "'heatmap'" in assert_problem(upload(client, COCK, to=f"predict?heatmap={value}"), 400, "bad-parameter")


def test_times_are_in_a_header_of_their_own(app: flask.Flask) -> None:
    header = upload(app.test_client(), COCK).headers["Server-Timing"]
    *stages, batch, source = header.split(", ")
    matches = [re.fullmatch(r"(\w+);dur=\d+\.\d\d", stage) for stage in stages]
    assert [match and match[1] for match in matches] == ["decode", "queue", "infer", "total"]
    assert (batch, source) == ('batch;desc="1"', "cache;desc=miss")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "照片.png", "a\x00b.png", "x" * 5000, "'; DROP TABLE--", "<script>.png", 'q"uote.exe', "CON"],
)
def test_file_names_do_not_matter_and_are_not_echoed(client: FlaskClient, name: str) -> None:
    assert upload(client, COCK, name=name).data == upload(client, COCK).data


def test_second_file_part_is_sent_to_the_batch(client: FlaskClient) -> None:
    assert "predict/batch" in assert_problem(upload(client, COCK, GROUSE), 400, "too-many-photos")


def test_many_file_parts_are_still_told_of_the_batch(client: FlaskClient) -> None:
    assert "predict/batch" in assert_problem(upload(client, *[COCK] * 100), 400, "too-many-photos")


def test_other_fields_beside_the_photo_are_ignored(client: FlaskClient) -> None:
    fields = {"csrf": "x", "thumb": (io.BytesIO(b"text"), "t.txt"), "file": (io.BytesIO(COCK), "a.png")}
    assert client.post("/api/v1/predict", data=fields).data == upload(client, COCK).data


def test_form_without_boundary_says_what_to_do(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict", data=DALMATIAN, content_type=FORM)
    assert "boundary" in assert_problem(answer, 400, "bad-request")


def test_photo_sent_as_text_is_told_of_the_at_sign(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict", **form(bytes(2_000_000), name=None))
    assert "@" in assert_problem(answer, 400, "no-photo")


def test_batch_answers_in_order(client: FlaskClient) -> None:
    answer = upload(client, GROUSE, DALMATIAN, COCK, to="predict/batch?top=1")
    assert answer.headers["Cache-Control"] == "no-store"
    assert [class_ids(result) for result in answer.json["results"]] == [[80], [251], [7]]


def test_batch_item_is_what_a_single_request_answers(client: FlaskClient) -> None:
    batch = upload(client, COCK, to="predict/batch").json
    assert upload(client, COCK).json == batch["results"][0] | {"model": batch["model"]}
    assert json.dumps(batch["model"], separators=(",", ":")) == MODEL


def test_bad_item_of_a_batch_has_its_problem_the_others_answers(client: FlaskClient) -> None:
    bad = (b"", b"just text", COCK[:200], b"%PDF-1.7\n")
    answer = upload(client, COCK, *bad, GROUSE, to="predict/batch?top=1")
    first, *problems, last = answer.json["results"]
    assert answer.status_code == 200
    assert (class_ids(first), class_ids(last)) == ([7], [80])
    slugs = [(400, "no-photo"), (415, "unsupported-image"), (422, "broken-image"), (415, "unsupported-image")]
    for problem, (status, slug) in zip(problems, slugs, strict=True):
        assert_problem_document(problem, status, slug)


def test_batch_of_bad_items_still_names_the_model(client: FlaskClient) -> None:
    answer = upload(client, b"text", to="predict/batch").json
    assert (len(answer["results"]), answer["model"]["name"]) == (1, "resnet18")


@pytest.mark.parametrize("body", [NO_PART, form(COCK, field="photo")], ids=["no part", "another name"])
def test_batch_without_a_file_part_is_refused(client: FlaskClient, body: dict[str, object]) -> None:
    assert "'file'" in assert_problem(client.post("/api/v1/predict/batch", **body), 400, "no-photo")


def test_batch_is_a_form(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict/batch", data=COCK, content_type="image/png")
    assert "-F file=@" in assert_problem(answer, 415, "unsupported-content-type")


def limited_client(make_settings: Callable[..., Settings], **limits: int) -> FlaskClient:
    """Make a client of an application with narrower limits."""
    return create_app(make_settings(**limits), fake_classifier()).test_client()


def test_batch_over_its_item_count_is_refused(make_settings: Callable[..., Settings]) -> None:
    client = limited_client(make_settings, max_batch_items=2)
    assert upload(client, COCK, COCK, to="predict/batch").status_code == 200
    answer = upload(client, COCK, COCK, COCK, to="predict/batch")
    assert assert_problem(answer, 413, "too-large") == "3 photos are more than the 2 of one batch."


def test_batch_item_over_the_photo_limit_carries_its_problem(make_settings: Callable[..., Settings]) -> None:
    client = limited_client(make_settings, max_upload_bytes=len(COCK))
    too_large, fine = upload(client, COCK + b"\0", COCK, to="predict/batch").json["results"]
    assert_problem_document(too_large, 413, "too-large")
    assert class_ids(fine)[0] == 7


def test_batch_over_its_bytes_is_refused(make_settings: Callable[..., Settings]) -> None:
    client = limited_client(make_settings, max_upload_bytes=1000, max_batch_bytes=1000)
    answer = upload(client, *[bytes(900)] * 80, to="predict/batch")
    assert assert_problem(answer, 413, "too-large") == "The limit is 1,000 bytes. Send fewer photos at a time."


def test_request_of_very_many_parts_is_refused_for_that(client: FlaskClient) -> None:
    answer = upload(client, *[b""] * 1100, to="predict/batch")
    assert assert_problem(answer, 413, "too-large") == "The request has more than 1,024 parts."


def test_model_describes_what_serves_without_its_path(client: FlaskClient) -> None:
    answer = client.get("/api/v1/model")
    assert answer.json["name"] == "resnet18"
    assert answer.json["published_accuracy"] == {"top1": 69.758, "top5": 89.078}
    assert (answer.json["classes"], answer.json["input"]["crop"]) == (1000, 224)
    assert ".pth" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


def test_labels_list_all_classes_with_chinese_unescaped(client: FlaskClient) -> None:
    answer = client.get("/api/v1/labels")
    assert [label["class_id"] for label in answer.json["labels"]] == list(range(1000))
    assert (
        '{"class_id":251,"wnid":"n02110341","label":"dalmatian","label_zh":"斑点狗","label_gloss":null}' in answer.text
    )


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "predict", {"OPTIONS", "POST"}),
        ("PUT", "predict/batch", {"OPTIONS", "POST"}),
        ("DELETE", "labels", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_other_methods_are_refused_and_told_which_work(
    client: FlaskClient, method: str, path: str, allow: set[str]
) -> None:
    answer = client.open(f"/api/v1/{path}", method=method)
    detail = assert_problem(answer, 405, "method-not-allowed")
    assert detail == f"{method} is not allowed on /api/v1/{path}; use {(allow - {'HEAD', 'OPTIONS'}).pop()}."
    assert set(answer.headers["Allow"].split(", ")) == allow


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/api/v2/predict", "/api/v1/predict/", "/api/v1/predict/x"])
def test_unknown_addresses_are_problems(client: FlaskClient, path: str) -> None:
    assert path in assert_problem(client.get(path), 404, "not-found")


def test_thumbnail_is_the_upright_photo_small(client: FlaskClient) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6  # turned clockwise by a quarter
    photo = encode(cat(400, 200), "JPEG", exif=turned)
    answer = upload(client, photo, to="thumbnail?side=100")
    assert (answer.status_code, answer.mimetype, answer.headers["Cache-Control"]) == (200, "image/jpeg", "no-store")
    assert re.match(r"decode;dur=[0-9.]+, queue;dur=[0-9.]+, total;dur=", answer.headers["Server-Timing"])
    with Image.open(io.BytesIO(answer.data)) as image:
        assert (image.size, dict(image.getexif())) == ((50, 100), {})


def test_thumbnail_is_webp_where_that_is_preferred(client: FlaskClient) -> None:
    answer = client.post("/api/v1/thumbnail", **form(COCK), headers={"Accept": "image/webp"})
    assert (answer.mimetype, answer.headers["Vary"]) == ("image/webp", "Accept")


def test_thumbnail_needs_no_model(make_settings: Callable[..., Settings]) -> None:
    def fail() -> Model:
        raise WeightsError("The weights have not been fetched yet.")

    app = create_app(make_settings(), make_classifier(fail))
    assert upload(app.test_client(), COCK, to="thumbnail").status_code == 200
    assert upload(app.test_client(), COCK).status_code == 503


@pytest.mark.parametrize(
    ("photo", "query", "status", "slug"),
    [
        (COCK, "?side=15", 400, "bad-parameter"),
        (COCK, "?side=1025", 400, "bad-parameter"),
        (COCK, "?top=3", 400, "bad-parameter"),
        (b"", "", 400, "no-photo"),
        (b"just text", "", 415, "unsupported-image"),
        (COCK[:200], "", 422, "broken-image"),
    ],
)
def test_thumbnail_of_a_bad_request_is_a_problem(
    client: FlaskClient, photo: bytes, query: str, status: int, slug: str
) -> None:
    assert_problem(upload(client, photo, to=f"thumbnail{query}"), status, slug)
