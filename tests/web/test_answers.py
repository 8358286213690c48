"""One photo's answer in bytes: kept, shared, streamed, embedded."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, colour_png, fake_classifier, fake_model, make_classifier
from flask.testing import FlaskClient
from shapes import assert_problem, assert_problem_document, form
from watching import WatchedCache

from app import create_app
from app.model.engines import Inference, Pixels
from app.model.labels import Label
from app.model.served import Served
from app.web.answers import encode, with_members_before
from app.web.keys import Key, digest_of
from app.web.service import service_of

COCK = colour_png(7, 251, 80)
GROUSE = colour_png(80, 7, 251)
LINES = {"Accept": "application/x-ndjson"}


class GatedEngine(FakeEngine):
    """Hold crops whose red is 99 until a gate opens, and count all crops."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered: Callable[[], None] = lambda: None
        self.calls = 0

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Wait for the gate if the crop's red is 99."""
        self.calls += 1
        if batch[0, 0, 0, 0] == 99:
            self.entered()
            assert self.gate.wait(60)
        return super().infer(batch, alone=alone)


class FailingEngine(FakeEngine):
    """Fail unexpectedly for crops whose red is 99."""

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Raise KeyError if the crop's red is 99."""
        if batch[0, 0, 0, 0] == 99:
            raise KeyError("an unexpected failure")
        return super().infer(batch, alone=alone)


def client_of(make_settings, engine: FakeEngine, cpus: int = 2, **values: object) -> FlaskClient:
    """Make a client of an application with this engine."""
    classifier = make_classifier(lambda: fake_model(engine), cpus=cpus)
    return create_app(make_settings(**values), classifier).test_client()


def test_json_is_compact_and_unescaped() -> None:
    assert encode({"b": "虎", "a": [1, 2]}) == '{"b":"虎","a":[1,2]}'.encode()
    assert with_members_before({"b": None}, b'{"a":1}') == b'{"b":null,"a":1}'
    assert with_members_before({}, b'{"a":1}') == b'{"a":1}'


def test_a_cached_answer_is_the_same_and_says_so(make_settings) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine)
    first, second = (client.post("/api/v1/predict", data=COCK) for _ in range(2))
    assert first.data == second.data
    assert engine.calls == 1
    assert "cache;desc=miss" in first.headers["Server-Timing"]
    assert "cache;desc=hit" in second.headers["Server-Timing"]
    assert "infer" not in second.headers["Server-Timing"]


def test_another_model_has_another_answer(make_settings) -> None:
    classifier = fake_classifier()
    client = create_app(make_settings(), classifier).test_client()
    assert client.post("/api/v1/predict", data=COCK).json["predictions"][0]["label"] == "cock"
    renamed = tuple(Label(number, None, f"class {number}", None) for number in range(1000))
    classifier.use(Served(dataclasses.replace(fake_model(), labels=renamed)))
    assert client.post("/api/v1/predict", data=COCK).json["predictions"][0]["label"] == "class 7"


@pytest.mark.parametrize("query", ["top=2", "labels=en", "heatmap=1", "min_confidence=0.1"])
def test_other_parameters_are_another_answer(make_settings, query: str) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine)
    client.post("/api/v1/predict", data=COCK)
    assert "desc=miss" in client.post(f"/api/v1/predict?{query}", data=COCK).headers["Server-Timing"]
    assert engine.calls == 2


def test_single_batch_archive_and_stream_share_the_cache(make_settings) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine)
    client.post("/api/v1/predict", data=COCK)
    client.post("/api/v1/predict/batch", **form(COCK, COCK))
    client.post("/api/v1/predict/batch", headers=LINES, **form(COCK)).get_data()
    assert engine.calls == 1


def test_nothing_is_cached_if_the_setting_says_so(make_settings) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine, result_cache_bytes=0)
    for _ in range(2):
        assert "desc=miss" in client.post("/api/v1/predict", data=COCK).headers["Server-Timing"]


def keys_file_of(folder: Path, *names: str) -> Path:
    """Write a file in which each name has the key `tt_` and itself."""
    path = folder / "keys.txt"
    path.write_text("\n".join(Key(name, True, digest_of(f"tt_{name}")).as_line() for name in names), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", ["predict", "embed"])
def test_a_cached_response_is_not_shared_between_keys(make_settings, tmp_path: Path, path: str) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine, api_keys_file=keys_file_of(tmp_path, "alice", "bob"))
    sources = []
    for name in ("alice", "bob", "alice", "bob"):
        answer = client.post(f"/api/v1/{path}", data=COCK, headers={"Authorization": f"Bearer tt_{name}"})
        sources.append(re.search(r"cache;desc=(\w+)", answer.headers["Server-Timing"])[1])
    assert sources == ["miss", "miss", "hit", "hit"]
    assert engine.calls == 2


def test_a_batch_is_cached_for_its_own_key_too(make_settings, tmp_path: Path) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine, api_keys_file=keys_file_of(tmp_path, "alice", "bob"))
    for name in ("alice", "bob", "alice"):
        headers = {"Authorization": f"Bearer tt_{name}"}
        assert client.post("/api/v1/predict/batch", headers=headers, **form(COCK)).status_code == 200
    assert engine.calls == 2


@pytest.mark.parametrize(("second", "calls"), [("alice", 1), ("bob", 2)])
def test_a_computation_is_shared_only_with_the_same_key(
    make_settings, tmp_path: Path, second: str, calls: int
) -> None:
    engine, entered = GatedEngine(), threading.Semaphore(0)
    client = client_of(make_settings, engine, api_keys_file=keys_file_of(tmp_path, "alice", "bob"))
    engine.entered = entered.release
    service_of(client.application).results = results = WatchedCache(1 << 20)

    def post(name: str) -> str:
        headers = {"Authorization": f"Bearer tt_{name}"}
        answer = client.application.test_client().post("/api/v1/predict", data=colour_png(99), headers=headers)
        return answer.headers["Server-Timing"]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, "alice")
        assert entered.acquire(timeout=60)
        other = pool.submit(post, second)
        if calls == 1:
            results.watch.wait_for_waits()
        else:
            assert entered.acquire(timeout=60)
        engine.gate.set()
        assert "desc=miss" in first.result(60)
        assert ("desc=shared" if calls == 1 else "desc=miss") in other.result(60)
    assert engine.calls == calls


def test_lines_say_what_the_batch_says(client: FlaskClient) -> None:
    photos = form(COCK, b"text", GROUSE)
    batch = client.post("/api/v1/predict/batch", **photos).json
    answer = client.post("/api/v1/predict/batch", headers=LINES, **photos)
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.mimetype == "application/x-ndjson"
    assert last == {"model": batch["model"]}
    assert sorted(line["index"] for line in lines) == [0, 1, 2]
    for line in lines:
        assert batch["results"][line.pop("index")] == line


def test_a_line_comes_as_soon_as_it_is_ready(make_settings) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine)
    photos = form(colour_png(99), COCK)
    lines = client.post("/api/v1/predict/batch", headers=LINES, buffered=False, **photos).iter_encoded()
    assert json.loads(next(lines))["index"] == 1
    engine.gate.set()
    assert json.loads(next(lines))["index"] == 0
    assert "model" in json.loads(next(lines))


def test_a_reader_that_leaves_ends_the_work(make_settings) -> None:
    engine = GatedEngine()
    client = client_of(make_settings, engine, cpus=1)
    photos = form(COCK, colour_png(99), *[colour_png(number) for number in range(20)])
    answer = client.post("/api/v1/predict/batch", headers=LINES, buffered=False, **photos)
    next(answer.iter_encoded())
    engine.gate.set()
    answer.close()
    admission = service_of(client.application).admission
    assert (admission.requests, admission.bytes) == (0, 0)
    assert engine.calls < 22


def test_an_unexpected_failure_is_a_problem_of_its_photo_only(make_settings, caplog) -> None:
    client = client_of(make_settings, FailingEngine())
    good, bad = client.post("/api/v1/predict/batch", **form(COCK, colour_png(99))).json["results"]
    assert good["predictions"][0]["class_id"] == 7
    assert_problem_document(bad, 500, "internal-error")
    assert "an unexpected failure" in caplog.text


def test_a_batch_without_any_answer_is_one_problem(make_settings) -> None:
    client = client_of(make_settings, FailingEngine())
    assert_problem(client.post("/api/v1/predict/batch", **form(colour_png(99))), 500, "internal-error")


def test_a_class_without_a_chinese_name_keeps_its_own(make_settings) -> None:
    labels = tuple(Label(number, None, f"bird {number}", None) for number in range(1000))
    model = dataclasses.replace(fake_model(), labels=labels)
    client = create_app(make_settings(), make_classifier(lambda: model)).test_client()
    row = client.post("/api/v1/predict?labels=zh", data=COCK).json["predictions"][0]
    assert (row["label"], row["label_zh"]) == ("bird 7", None)


def test_embedding_is_the_mean_of_the_features(client: FlaskClient) -> None:
    answer = client.post("/api/v1/embed", data=COCK).json
    assert list(answer) == ["embedding", "dimension", "normalized", "image", "model"]
    assert (answer["embedding"], answer["dimension"], answer["normalized"]) == ([1.0] * 4, 4, False)


def test_embedding_has_length_one_on_request(client: FlaskClient) -> None:
    answer = client.post("/api/v1/embed?normalize=1", data=COCK).json
    assert (answer["embedding"], answer["normalized"]) == ([0.5] * 4, True)


def test_embedding_of_the_real_model(packaged_settings, packaged_classifier, real_photos) -> None:
    client = create_app(packaged_settings, packaged_classifier).test_client()
    photo = {"image": base64.b64encode(real_photos["cat"]).decode()}
    answer = client.post("/api/v1/embed?normalize=1", json=photo).json
    npy = client.post("/api/v1/embed?normalize=1", data=real_photos["cat"], headers={"Accept": "application/x-npy"})
    vector = np.load(io.BytesIO(npy.data), allow_pickle=False)
    assert npy.mimetype == "application/x-npy"
    assert (vector.shape, vector.dtype, answer["dimension"]) == ((1280,), np.float32, 1280)
    assert np.array_equal(np.asarray(answer["embedding"], np.float32), vector)
    assert abs(np.linalg.norm(vector) - 1) < 1e-6


@pytest.mark.parametrize("value", ["2", "true", ""])
def test_bad_normalize_is_refused(client: FlaskClient, value: str) -> None:
    assert "'normalize'" in assert_problem(
        client.post(f"/api/v1/embed?normalize={value}", data=COCK), 400, "bad-parameter"
    )


def test_classifier_is_lazy_here_too(make_settings) -> None:
    classifier = fake_classifier()
    client = create_app(make_settings(), classifier).test_client()
    assert classifier.loaded_model is None
    assert client.post("/api/v1/embed", data=COCK).status_code == 200
