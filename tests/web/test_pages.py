"""The page without JavaScript: form, answers, problems, in both languages and under any prefix."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import flask
import numpy as np
import pytest
from fakes import CLASSES, FakeEngine, colour_png, fake_classifier, fake_model, fallback_model, make_classifier
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from app import create_app
from app.errors import PROBLEMS
from app.model import Model
from app.model.calibration import Calibration
from app.model.certainty import Judge
from app.model.engines import Inference, Pixels
from app.model.groups import groups_of
from app.model.labels import Label, imagenet_labels
from app.model.own_format import NAME
from app.photos.formats import NAMES
from app.photos.heatmaps import COLOURS
from app.settings import Settings
from app.web.language import read_languages
from app.web.teaching_schemas import MAX_EDIT

CHINESE = {"Accept-Language": "zh"}


def send(client: FlaskClient, data: bytes, name: str = "photo.png", **headers: str) -> TestResponse:
    # Written by hand, since the test client would spool a large file to the disk.
    disposition = f'form-data; name="file"; filename="{name}"'.encode()
    body = b"--limit\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + data + b"\r\n--limit--\r\n"
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    return client.post("/", data=body, content_type="multipart/form-data; boundary=limit", headers=headers)


def test_the_script_draws_heat_maps_as_the_server_does(client: FlaskClient) -> None:
    page = client.get("/").text
    facts = re.search(r'data-heatmap="([^"]+)"', page)
    assert facts is not None
    colours = [list(colour) for colour in COLOURS]
    assert json.loads(html.unescape(facts[1])) == {"colours": colours, "floor": 0.35, "outside": 0.62, "most": 10}
    assert 'value="70" data-part="opacity"' in page


def test_inputs_take_names_as_long_as_the_server_does(make_settings, tmp_path: Path) -> None:
    page = create_app(make_settings(teach="on", projects=tmp_path)).test_client().get("/teach").text
    assert re.search(r'id="access-key"[^>]* maxlength="512"', page)
    assert re.search(r'id="new-name"[^>]* maxlength="64"', page)
    assert len(re.findall(r'maxlength="200"[^>]* data-part="(?:name|chinese)"', page)) == 2


def test_the_script_of_teaching_gets_the_names_and_limits(make_settings, tmp_path: Path) -> None:
    client = create_app(make_settings(teach="on", projects=tmp_path)).test_client()
    facts = re.search(r'data-teaching="([^"]+)"', client.get("/teach").text)
    assert facts is not None
    expected = {"name": NAME.pattern, "none": "~none", "noneLabel": "none of these", "maxEdit": MAX_EDIT}
    assert json.loads(html.unescape(facts[1])) == expected


def written(key: str, language: str = "en", **values: object) -> str:
    """Return a word of the page in a language."""
    known = {"limit": "10", "kinds": read_languages()[language].any_of(NAMES)}
    return read_languages()[language].text(key, **(known | values))


def refuse_to_load() -> Model:
    raise AssertionError("The page loaded the model.")


class TwoLogits(FakeEngine):
    """Answer with one logit for the first class and another for the second; all others are 0."""

    def __init__(self, first: float, second: float) -> None:
        self.first, self.second = first, second

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        logits = np.zeros((len(batch), CLASSES), np.float32)
        logits[:, :2] = self.first, self.second
        return Inference(logits, np.ones((len(batch), 4, 7, 7), np.float32))


def hostile_model() -> Model:
    """Make a model whose classes have names of a custom labels file that try to be markup."""
    names = tuple(Label(index, None, "<img src=x>", None) for index in range(CLASSES))
    return dataclasses.replace(fake_model(), labels=names)


@pytest.mark.parametrize("address", ["/", "/problems/too-large", "/nothing/here", "/robots.txt", "/favicon.ico"])
def test_looking_at_the_page_never_loads_the_model(make_settings: Callable[..., Settings], address: str) -> None:
    client = create_app(make_settings(), make_classifier(refuse_to_load)).test_client()
    assert client.get(address).status_code in (200, 404)


def test_the_form_needs_no_script(client: FlaskClient) -> None:
    page = client.get("/").text
    assert re.search(r'<form[^>]* method="post" action="\./" enctype="multipart/form-data"', page)
    assert re.search(r'<label[^>]* for="file">', page)
    assert re.search(r'<input id="file" type="file" name="file" required', page)
    assert re.search(r'<button class="submit"><span[^>]*>Classify</span></button>', page)


def test_the_page_says_that_photos_are_not_stored(client: FlaskClient) -> None:
    page = client.get("/").text
    assert written("knows") in page
    assert written("private") in page


def test_the_limit_of_the_settings_is_named(make_settings: Callable[..., Settings]) -> None:
    client = create_app(make_settings(max_upload_bytes=3 * 1024 * 1024), fake_classifier()).test_client()
    assert "up to 3\u00a0MiB" in client.get("/").text


@pytest.mark.parametrize(("language", "first", "second"), [("en", "hen", "母鸡"), ("zh", "母鸡", "hen")])
def test_an_answer_has_both_names_the_readers_first(
    client: FlaskClient, language: str, first: str, second: str
) -> None:
    page = send(client, colour_png(8), Accept_Language=language).text
    tags = {"hen": "en", "母鸡": "zh-Hans"}
    names = (
        f'<span lang="{tags[first]}">{first}</span>',
        f'<span class="other" lang="{tags[second]}">{second}</span>',
    )
    assert f'<p class="name">{" ".join(names)}</p>' in page
    assert f"<title>{first} ·" in page


def test_answers_have_bars_with_numbers(client: FlaskClient) -> None:
    page = send(client, colour_png(8)).text
    values = [float(value) for value in re.findall(r'<meter min="0" max="1" value="([\d.]+)"', page)]
    shown = [float(value) for value in re.findall(r'<p class="percent">([\d.]+)%', page)]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)
    assert shown == [round(100 * value, 1) for value in values]


def test_the_photo_comes_back_as_a_small_jpeg_without_metadata(client: FlaskClient) -> None:
    page = send(client, colour_png(8, size=(1600, 800))).text
    encoded = re.search(r'src="data:image/jpeg;base64,([\w+/=]+)"', page)
    assert encoded
    with Image.open(io.BytesIO(base64.b64decode(encoded[1]))) as thumbnail:
        assert thumbnail.size == (640, 320)
        assert not thumbnail.getexif()
    assert "1600 × 800 pixels, PNG" in page


def test_an_answer_is_not_stored_and_names_its_model(client: FlaskClient) -> None:
    response = send(client, colour_png(8))
    assert response.headers["Cache-Control"] == "no-store"
    assert "Model: ResNet-18 (fp32)." in response.text


@pytest.mark.parametrize(
    ("logits", "calibration", "sentence"),
    [
        ((9.0, 0.0), None, "Most likely: tench (green)"),
        ((9.0, 0.0), Calibration(1.0, 0.85, None, "A test."), "This looks like: tench (green)"),
        ((9.0, 8.0), Calibration(1.0, 0.85, None, "A test."), "A fish, probably tench"),
        ((6.4, 0.0), Calibration(1.0, 0.85, None, "A test."), "Not sure, but probably: tench (green)"),
        ((9.0, 0.0), Calibration(1.0, 0.85, 1e9, "A test."), "It looks like nothing I know"),
    ],
)
def test_a_sentence_says_what_the_answer_is_worth(
    make_settings: Callable[..., Settings],
    logits: tuple[float, float],
    calibration: Calibration | None,
    sentence: str,
) -> None:
    judge = Judge(calibration, groups_of(imagenet_labels()), np.zeros(CLASSES, np.float32))
    labels = (dataclasses.replace(imagenet_labels()[0], label_gloss="green"), *imagenet_labels()[1:])
    model = dataclasses.replace(fake_model(TwoLogits(*logits)), judge=judge, labels=labels)
    client = create_app(make_settings(), make_classifier(lambda: model)).test_client()
    assert f'<p class="advice">{sentence}</p>' in send(client, colour_png(8)).text


def test_a_model_still_loading_is_said(app: flask.Flask) -> None:
    client = app.test_client()
    assert written("loading") in client.get("/").text
    send(client, colour_png(8))
    assert written("loading") not in client.get("/").text


def test_a_fallback_is_said_on_every_page(make_settings: Callable[..., Settings]) -> None:
    classifier = make_classifier(fallback_model)
    client = create_app(make_settings(), classifier).test_client()
    assert written("fallback") in send(client, colour_png(8)).text
    assert written("fallback") in client.get("/").text


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"", "no-photo"),
        (b"hello, this is text", "unsupported-image"),
        (b"%PDF-1.7", "unsupported-image"),
        (b"\x89PNG\r\n\x1a\n damaged", "broken-image"),
        (b"\xff\xd8\xff" + bytes(10 * 1024 * 1024), "too-large"),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_bad_photo_gets_a_page_that_says_what_to_do(
    client: FlaskClient, data: bytes, slug: str, language: str
) -> None:
    response = send(client, data, Accept_Language=language)
    problem = next(problem for problem in PROBLEMS if problem.slug == slug)
    assert response.status_code == problem.status
    assert written(f"problem.{slug}", language) in response.text
    assert written(f"advice.{slug}", language) in response.text
    assert '<input id="file"' in response.text


def test_a_form_without_a_file_says_so(client: FlaskClient) -> None:
    response = client.post("/", data={"other": "1"}, content_type="multipart/form-data")
    assert response.status_code == 400
    assert written("problem.no-photo") in response.text


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_problem_has_a_page(client: FlaskClient, problem: type, language: str) -> None:
    response = client.get(f"/problems/{problem.slug}", headers={"Accept-Language": language})
    assert response.status_code == 200
    assert written(f"advice.{problem.slug}", language) in response.text
    assert 'action="../"' in response.text


@pytest.mark.parametrize("address", ["/nothing", "/problems/nothing", "/a/b/c", "/static/missing.css"])
def test_an_unknown_address_is_a_page_in_the_readers_language(client: FlaskClient, address: str) -> None:
    response = client.get(address, headers=CHINESE)
    assert response.status_code == 404
    assert written("problem.not-found", "zh") in response.text


def test_a_wrong_method_is_a_page(client: FlaskClient) -> None:
    response = client.delete("/")
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert written("problem.method-not-allowed") in response.text


def test_text_from_a_visitor_is_escaped(client: FlaskClient) -> None:
    for address in ("/<script>alert(1)</script>", '/"onload="alert(1)', "/problems/<b>"):
        page = client.get(address).text
        assert "<script>alert" not in page
        assert '"onload="' not in page
        assert "<b>" not in page


def test_a_class_name_is_escaped(make_settings: Callable[..., Settings]) -> None:
    page = send(create_app(make_settings(), make_classifier(hostile_model)).test_client(), colour_png(8)).text
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page


def test_a_hostile_file_name_is_not_repeated(client: FlaskClient) -> None:
    assert "alert" not in send(client, colour_png(8), name="'><script>alert(1)</script>.png").text


@pytest.mark.parametrize(("address", "root"), [("/", "./"), ("/problems/overloaded", "../"), ("/a/b/c", "../../")])
def test_all_links_are_relative_so_any_prefix_works(client: FlaskClient, address: str, root: str) -> None:
    page = client.get(address).text
    links = re.findall(r'(?:href|src|action|data-root|data-sample)="([^"#]*)"', page)
    assert len(links) > 5
    assert all(link.startswith(root) for link in links)


def test_the_page_says_nothing_inline_that_its_policy_forbids(client: FlaskClient) -> None:
    for response in (client.get("/"), send(client, colour_png(8)), client.get("/nothing")):
        assert "'unsafe-" not in response.headers["Content-Security-Policy"]
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", response.text)


def test_the_page_names_no_other_host(client: FlaskClient) -> None:
    for response in (client.get("/"), send(client, colour_png(8)), client.get("/nothing")):
        assert "//" not in re.sub(r"data:[^\"]*", "", response.text)


def test_crawlers_may_read_the_first_page_only(client: FlaskClient) -> None:
    response = client.get("/robots.txt")
    assert response.mimetype == "text/plain"
    assert response.text.splitlines() == ["User-agent: *", "Allow: /$", "Disallow: /"]


def test_browsers_find_the_icon_where_they_guess_it(client: FlaskClient) -> None:
    response = client.get("/favicon.ico")
    assert response.data.startswith(b"\x00\x00\x01\x00")


def test_behind_a_proxy_the_cookie_switch_stays_below_the_prefix(app: flask.Flask) -> None:
    response = app.test_client().get("/?lang=zh", base_url="http://host/photos/")
    assert response.headers["Location"] == "./"
