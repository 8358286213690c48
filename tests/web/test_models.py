"""Several models in one service: which answers, how often it counts, and how a bad name is refused."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import flask
import numpy as np
import pytest
from fakes import FakeEngine, colour_png
from flask.testing import FlaskClient
from own_heads import SHA256, classifier_with_heads, own_model

from app import create_app
from app.model.engines import Inference, Pixels
from app.model.own_models import remove, write_version
from app.settings import Settings
from app.telemetry import metrics
from app.web.service import service_of

COCK = colour_png(7)


class CountingEngine(FakeEngine):
    """Count forward passes."""

    def __init__(self) -> None:
        self.passes = 0

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        self.passes += 1
        return super().infer(batch, alone=alone)


@pytest.fixture
def engine() -> CountingEngine:
    """The engine that all models share."""
    return CountingEngine()


@pytest.fixture
def make_app(
    tmp_path: Path, make_settings: Callable[..., Settings], engine: CountingEngine
) -> Callable[..., flask.Flask]:
    """Make an application with the heads `pets` and `tools` on the fake backbone."""

    def make(default: str = "", **values: object) -> flask.Flask:
        classifier = classifier_with_heads(tmp_path, default, engine)
        classifier.warm_up()
        return create_app(make_settings(**values), classifier)

    return make


@pytest.fixture
def client(make_app: Callable[..., flask.Flask]) -> FlaskClient:
    return make_app().test_client()


def send(client: FlaskClient, route: str, **values: object) -> object:
    return client.post(f"/api/v1/{route}", data=COCK, headers={"Content-Type": "image/png"}, **values)


def problem(answer: object, status: int, slug: str) -> str:
    assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{slug}")
    return answer.json["detail"]


def test_without_a_choice_nothing_changes(client: FlaskClient) -> None:
    answer = send(client, "predict").json
    assert answer["predictions"][0]["class_id"] == 7
    assert answer["model"]["name"] == "resnet18"
    assert not {"models", "version"} & (answer.keys() | answer["model"].keys())


def test_a_model_is_chosen_by_its_name(client: FlaskClient) -> None:
    answer = send(client, "predict?model=pets&top=2").json
    assert [row["label"] for row in answer["predictions"]] == ['dog, "big"', "杯"]
    assert (answer["model"]["name"], answer["model"]["version"], answer["model"]["backbone"]) == (
        "pets",
        1,
        "resnet18",
    )
    assert "models" not in answer
    assert send(client, "predict?model=resnet18").json["predictions"][0]["class_id"] == 7


def test_several_models_answer_from_one_pass(client: FlaskClient, engine: CountingEngine) -> None:
    before = engine.passes
    answer = send(client, "predict?model=pets,resnet18,tools&heatmap=1").json
    assert engine.passes == before + 1
    assert [each["model"]["name"] for each in answer["models"]] == ["pets", "resnet18", "tools"]
    assert answer["models"][0]["predictions"] == answer["predictions"]
    assert answer["model"] == answer["models"][0]["model"]
    assert answer["models"][1]["predictions"][0]["class_id"] == 7
    assert answer["models"][2]["predictions"][0]["label"] == "cat"
    assert all(len(each["predictions"][0]["heatmap"]) == 7 for each in answer["models"])
    alone = send(client, "predict?model=tools&heatmap=1").json
    assert alone["predictions"] == answer["models"][2]["predictions"]


def test_the_setting_makes_a_model_the_default(make_app: Callable[..., flask.Flask]) -> None:
    app = make_app("pets")
    client = app.test_client()
    assert send(client, "predict").json["model"]["name"] == "pets"
    service_of(app).readiness.mark(0, True)
    assert client.get("/readyz").json["model"]["name"] == "pets"
    assert client.get("/api/v1/model").json["classes"] == 3
    assert len(client.get("/api/v1/labels?model=resnet18").json["labels"]) == 1000


def test_a_batch_is_answered_by_the_models_of_its_choice(client: FlaskClient) -> None:
    form = {"file": [(io.BytesIO(COCK), "a.png"), (io.BytesIO(colour_png(8)), "b.png")]}
    answer = client.post("/api/v1/predict/batch?model=pets,tools", data=form).json
    assert answer["model"]["name"] == "pets"
    assert [[each["model"]["name"] for each in row["models"]] for row in answer["results"]] == [["pets", "tools"]] * 2


def test_an_embedding_and_a_heat_map_take_one_model(client: FlaskClient) -> None:
    assert send(client, "embed?model=pets").json["model"]["name"] == "pets"
    assert send(client, "embed?model=pets").json["embedding"] == send(client, "embed").json["embedding"]
    assert send(client, "heatmap?model=pets&class_id=2").status_code == 200
    assert "from 0 to 2" in problem(send(client, "heatmap?model=pets&class_id=3"), 400, "bad-parameter")
    for route in ("embed", "heatmap"):
        assert "must name one model here" in problem(send(client, f"{route}?model=pets,tools"), 400, "bad-parameter")


@pytest.mark.parametrize("route", ["predict", "embed", "heatmap"])
@pytest.mark.parametrize(
    "name", ["pet", "..%2Fpets", "pets%2F1", "%2Fetc%2Fpasswd", "a" * 3000, "%F0%9F%98%80", "%00"]
)
def test_an_unknown_name_is_a_problem_of_its_own(client: FlaskClient, route: str, name: str) -> None:
    detail = problem(send(client, f"{route}?model={name}"), 404, "unknown-model")
    assert detail.endswith((".", "?"))
    assert len(detail) < 200
    if name == "pet":
        assert "Did you mean pets?" in detail


@pytest.mark.parametrize("names", ["", ",", "pets,", "pets,pets", "a,b,c,d,e"])
def test_a_choice_that_is_no_choice_is_refused(client: FlaskClient, names: str) -> None:
    problem(send(client, f"predict?model={names}"), 400, "bad-parameter")
    problem(client.get(f"/api/v1/model?model={names}"), 400, "bad-parameter")


def test_the_page_of_the_problem_is_in_both_languages(client: FlaskClient) -> None:
    for code, words in (("en", "There is no model of this name."), ("zh", "没有这个名称的模型。")):
        page = client.get("/problems/unknown-model", headers={"Accept-Language": code})
        assert words in page.text


def test_the_models_are_listed(client: FlaskClient) -> None:
    published, pets, tools = client.get("/api/v1/models").json["models"]
    assert (published["name"], published["version"], published["default"], published["classes"]) == (
        "resnet18",
        None,
        True,
        1000,
    )
    assert pets == {
        "name": "pets",
        "version": 1,
        "default": False,
        "classes": 3,
        "backbone": "resnet18",
        "accuracy": {"top1": 90.0, "low": 80.5, "high": 95.5},
        "created": "2026-01-02T03:04:05Z",
    }
    assert tools["name"] == "tools"


def test_a_model_is_described_as_its_own(client: FlaskClient) -> None:
    described = client.get("/api/v1/model?model=pets").json
    assert (described["classes"], described["published_accuracy"], described["licence"]) == (3, None, None)
    assert described["measured_accuracy"] == {"top1": 90.0, "low": 80.5, "high": 95.5}


def test_each_model_counts_as_a_request(make_app: Callable[..., flask.Flask]) -> None:
    client = make_app(rate_limit="10/hour").test_client()
    answer = send(client, "predict?model=pets,tools,resnet18")
    assert "r=7;" in answer.headers["RateLimit"]
    form = {"file": [(io.BytesIO(COCK), "a.png"), (io.BytesIO(COCK), "b.png")]}
    assert "r=3;" in client.post("/api/v1/predict/batch?model=pets,tools", data=form).headers["RateLimit"]


def test_a_new_version_has_its_own_answers(make_app: Callable[..., flask.Flask], tmp_path: Path) -> None:
    app = make_app()
    client = app.test_client()
    assert send(client, "predict?model=pets").json["predictions"][0]["label"] == 'dog, "big"'
    write_version(tmp_path, "pets", own_model(favourite=2))
    assert send(client, "predict?model=pets").json["model"]["version"] == 1
    service_of(app).classifier.refresh()
    answer = send(client, "predict?model=pets")
    assert (answer.json["model"]["version"], answer.json["predictions"][0]["label"]) == (2, "杯")
    assert "cache;desc=miss" in answer.headers["Server-Timing"]
    assert "cache;desc=hit" in send(client, "predict?model=pets").headers["Server-Timing"]
    remove(tmp_path, "pets")
    service_of(app).classifier.refresh()
    problem(send(client, "predict?model=pets"), 404, "unknown-model")


def test_metrics_and_logs_name_the_model(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    send(client, "predict?model=tools,pets")
    record = next(record for record in caplog.records if getattr(record, "route", "") == "/api/v1/predict")
    assert record.models == ["tools/1", "pets/1"]
    assert record.getMessage().endswith(", by tools/1, pets/1")
    shown = metrics.render("")[0].decode()
    assert 'topthree_photos_total{model="tools"}' in shown
    assert 'topthree_model_info{engine="fake",name="pets",precision="fp32",version="1"' in shown.replace(
        f'weights_sha256="{SHA256}",', ""
    ).replace(f',weights_sha256="{SHA256}"', "")


def test_a_stream_names_the_first_model(client: FlaskClient) -> None:
    form = {"file": [(io.BytesIO(COCK), "a.png")]}
    headers = {"Accept": "application/x-ndjson"}
    lines = client.post("/api/v1/predict/batch?model=tools,pets", data=form, headers=headers).data.splitlines()
    assert json.loads(lines[-1])["model"]["name"] == "tools"
    assert [each["model"]["name"] for each in json.loads(lines[0])["models"]] == ["tools", "pets"]


def test_heat_maps_weigh_the_cells_with_the_head(
    client: FlaskClient, engine: CountingEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features = np.zeros((1, 4, 7, 7), np.float32)
    features[0, 2, 5, 1] = 1

    def infer(batch: Pixels, *, alone: bool = False) -> Inference:
        return Inference(np.zeros((1, 1000), np.float32), features)

    write_version(tmp_path, "pets", own_model(weight=np.eye(3, 4, dtype=np.float32), bias=np.zeros(3, np.float32)))
    service_of(client.application).classifier.refresh()
    monkeypatch.setattr(engine, "infer", infer)
    first = send(client, "predict?model=pets&heatmap=1&top=1").json["predictions"][0]
    assert first["class_id"] == 2
    grid = np.array(first["heatmap"])
    assert (np.argmax(grid), grid.max(), np.count_nonzero(grid)) == (5 * 7 + 1, 1, 1)


@pytest.mark.parametrize(("code", "label"), [("en", "Model"), ("zh", "模型")])
def test_the_page_offers_the_models(client: FlaskClient, code: str, label: str) -> None:
    page = client.get("/", headers={"Accept-Language": code}).text
    assert re.findall(r'<option value="(\w+)"( selected)?>([^<]+)<', page) == [
        ("resnet18", " selected", "ResNet-18"),
        ("pets", "", "pets v1"),
        ("tools", "", "tools v1"),
    ]
    assert re.search(rf'<label for="model"><span[^>]*>{label}<', page)


def test_a_page_with_one_model_offers_no_choice(app: flask.Flask) -> None:
    client = app.test_client()
    assert '<select id="model"' not in client.get("/").text


def test_the_form_is_answered_by_the_chosen_model(client: FlaskClient) -> None:
    page = client.post("/", data={"model": "pets", "file": (io.BytesIO(COCK), "a.png")})
    assert (page.status_code, "dog, &#34;big&#34;" in page.text) == (200, True)
    assert "pets v1" in page.text
    assert '<option value="pets" selected>' in page.text
    page = client.post("/", data={"model": "../pets", "file": (io.BytesIO(COCK), "a.png")})
    assert (page.status_code, "There is no model of this name." in page.text) == (404, True)
