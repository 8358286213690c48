"""A model file serves if its input is a crop of uint8 and it returns logits; any other is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_graphs import WEIGHT, save_graph

from app import create_app
from app.errors import LabelsError, SettingsError, TopthreeError, WeightsError
from app.model import load_model
from app.model.model_files import read_model_file
from app.settings import Settings

REFUSED = [
    ({"kind": np.float32}, "takes f32 pixels, and only uint8 can serve"),
    ({"shape": (-1, -1, -1, 3)}, "takes pictures of any height and width"),
    ({"shape": (-1, 32, 48, 3)}, "takes pictures of 48x32 pixels, and only squares of at most 640 can serve"),
    ({"shape": (-1, 3, 32, 32)}, r"takes an input of shape \[\?,3,32,32\], and only crops \(n, side, side, 3\)"),
    ({"outputs": ("scores", "embedding")}, "has no output 'logits'.* its outputs are embedding, scores"),
    ({"outputs": ("embedding", "features")}, "has no output 'logits'"),
    ({"outputs": ("logits", "features")}, r"gives features of shape \[\?,3\], which cannot serve"),
    ({"softmax": True}, "ends in a softmax: export it again without, so that it gives logits"),
    ({"facts": "{}"}, "The metadata 'topthree' of .* is not what 'topthree export' writes"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_another_graph_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read_model_file(save_graph(tmp_path, **changes))


BAD_FILES = [
    ("missing.onnx", None, "is not a file"),
    ("damaged.onnx", b"\x08\x07damaged", "cannot be read by OpenVINO: it is damaged or incomplete"),
    ("page.onnx", b"<!doctype html>", "cannot be read by OpenVINO"),
    ("alone.xml", b"<net/>", "alone.bin, its weights, is not beside it"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_a_bad_file_is_refused(
    name: str, content: bytes | None, message: str, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TopthreeError, match=message):
        load_model(make_settings(model=tmp_path / name))


def test_a_file_without_metadata_needs_names(tmp_path: Path, make_settings: Callable[..., Settings]) -> None:
    path = save_graph(tmp_path)
    with pytest.raises((WeightsError, LabelsError), match="has 4 classes, but the labels name 1000"):
        load_model(make_settings(model=path))
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    model, _ = load_model(make_settings(model=path, labels=tmp_path / "names.txt"))
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = model.engine.infer(crops)
    assert np.allclose(found.features[:, :, 0, 0], crops.mean(axis=(1, 2)), atol=1e-2)
    assert np.allclose(found.logits, crops.mean(axis=(1, 2)) @ WEIGHT.T, rtol=1e-4)
    assert model.weights.record.geometry.resize == 36
    assert [label.label for label in model.labels] == ["a", "b", "c", "d"]


def test_a_replaced_file_is_prepared_again(tmp_path: Path, make_settings: Callable[..., Settings]) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    settings = make_settings(model=save_graph(tmp_path), labels=tmp_path / "names.txt")
    first, _ = load_model(settings)
    save_graph(tmp_path, shape=(-1, 40, 40, 3))
    second, _ = load_model(settings)
    assert first.weights.sha256 != second.weights.sha256
    assert (first.weights.record.geometry.crop, second.weights.record.geometry.crop) == (32, 40)


@pytest.mark.parametrize("outputs", [("scores",), ("logits",), ("logits", "other")])
def test_a_file_with_logits_alone_serves_without_embedding(
    outputs: tuple[str, ...], tmp_path: Path, make_settings: Callable[..., Settings], real_photos: dict[str, bytes]
) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    client = create_app(
        make_settings(model=save_graph(tmp_path, outputs=outputs), labels=tmp_path / "names.txt")
    ).test_client()
    photo = {"data": real_photos["cat"], "headers": {"Content-Type": "image/jpeg"}}
    answer = client.post("/api/v1/predict?heatmap=1", **photo).json
    assert answer["predictions"][0]["label"] == "d"
    assert not any("heatmap" in row for row in answer["predictions"])
    for route, slug in (("embed", "no-embedding"), ("heatmap", "no-heat-map")):
        refused = client.post(f"/api/v1/{route}", **photo)
        assert (refused.status_code, refused.json["type"].rpartition("/")[2]) == (422, slug)
    assert client.get("/api/v1/model").json["heatmap"] is None


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"engine": "torch"}, "TOPTHREE_ENGINE=torch cannot run"),
        ({"weights": "a.pth"}, "unset TOPTHREE_WEIGHTS"),
        ({"bundle": "a.tar"}, "TOPTHREE_BUNDLE has its own model; unset one of them"),
    ],
)
def test_settings_that_a_file_excludes(
    others: dict[str, str], message: str, make_settings: Callable[..., Settings]
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings(model="model.onnx", **others)
