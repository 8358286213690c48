"""An exported file computes what its network computes, says how to use it, runs alone, and serves again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from app.commands import cli
from app.model import load_model
from app.model.exporting import folder as exporting
from app.model.exporting.crops import CROPS, SAMPLES, photo_crops, sample_crops
from app.model.exporting.folder import ExportRefused, compare_logits, export_network
from app.model.exporting.formats import FORMATS, WithEmbedding, infer
from app.model.facts import Facts
from app.model.labels import Label
from app.photos.decoding import Geometry
from app.settings import Settings

SIDE = 32
GEOMETRY = Geometry(36, SIDE, "bicubic")
LABELS = (Label(0, "n01", "red", "红"), Label(1, None, "green", None, "the colour"), Label(2, None, "blue", None))
FACTS = Facts("colours", "ab" * 32, LABELS, GEOMETRY, 0.5, "CC0-1.0")
# The package cannot be imported in this process.
ALONE = "import runpy, sys; sys.modules['app'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"


class Tiny(nn.Module):
    """A network of one convolution, which returns logits and features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, len(LABELS))
        self.last.weight.data.mul_(20)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.layer(pixels.permute(0, 3, 1, 2).float() / 255).relu()
        return self.last(features.mean(dim=(2, 3))), features


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        return WithEmbedding(Tiny()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return sample_crops(GEOMETRY)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, network: nn.Module, crops: np.ndarray, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / request.param
    assert export_network(network, FACTS, crops, request.param, folder) < 1e-5
    return folder


def test_samples_make_32_different_crops(crops: np.ndarray) -> None:
    assert crops.shape == (CROPS, SIDE, SIDE, 3)
    assert len({crop.tobytes() for crop in crops}) == CROPS


def test_the_file_computes_logits_and_embedding(exported: Path, network: nn.Module, crops: np.ndarray) -> None:
    found = FORMATS[exported.name].load(exported / FORMATS[exported.name].file)(crops[:5])
    for ours, theirs in zip(found, infer(network, crops[:5]), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 1e-4


def test_the_example_runs_without_this_package(exported: Path, network: nn.Module) -> None:
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(exported / "classify.py"), str(SAMPLES[1])]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = infer(network, photo_crops([str(SAMPLES[1])], GEOMETRY, 10**7))[0][0] / 0.5
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    rows = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [name for _, name in rows] == [LABELS[index].label for index in np.argsort(-expected)]
    assert np.allclose([float(number) for number, _ in rows], np.sort(expected)[::-1], atol=0.02)


def test_the_readme_says_how_to_cut_the_crop(exported: Path) -> None:
    text = (exported / "README.txt").read_text()
    assert "short side of 36 pixels (bicubic" in text
    assert "softmax(logits / 0.5)" in text
    assert "The licence of the weights: CC0-1.0." in text
    assert len((exported / "classify.py").read_text().splitlines()) <= 30


def test_an_exported_file_serves(exported: Path, make_settings: Callable[..., Settings], crops, network) -> None:
    if exported.name not in ("onnx", "openvino"):
        pytest.skip("torch's own formats do not serve")
    model, _ = load_model(make_settings(model=exported / FORMATS[exported.name].file))
    assert model.identity["name"] == "file/colours"
    assert model.labels == LABELS
    assert model.weights.record.geometry == GEOMETRY
    assert model.weights.record.temperature == 0.5
    assert model.engine.head is None
    found, (logits, embedding) = model.engine.infer(crops[:3]), infer(network, crops[:3])
    assert np.abs(found.logits - logits).max() < 1e-4
    assert np.abs(found.embeddings - embedding).max() < 1e-4


def test_other_answers_than_torchs_are_refused() -> None:
    torchs = np.array([[2.0, 0.0], [0.0, 2.0]], np.float32)
    assert compare_logits(torchs, torchs + 1, "model.onnx") < 1e-6
    with pytest.raises(ExportRefused, match="another first class than torch for 1 of 2 crops; nothing was written"):
        compare_logits(torchs, np.array([[2.0, 0.0], [2.0, 0.0]], np.float32), "model.onnx")
    with pytest.raises(ExportRefused, match=r"differ from torch's by up to 0\.1192, more than 0\.002"):
        compare_logits(torchs, torchs * 100, "model.onnx")
    with pytest.raises(ExportRefused, match="nan"):
        compare_logits(torchs, np.array([[np.nan, 0.0], [0.0, 2.0]], np.float32), "model.onnx")


def test_a_refused_export_leaves_nothing(network: nn.Module, crops, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(exporting, "MAX_PROBABILITY_ERROR", -1.0)
    with pytest.raises(ExportRefused, match="nothing was written"):
        export_network(network, FACTS, crops, "torchscript", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_replaced(network: nn.Module, crops, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ExportRefused, match="exists already; name a new or empty folder"):
        export_network(network, FACTS, crops, "torchscript", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("photos", "message"), [((), "There is no photo in"), (("bad.jpg",), "cannot be used to compare")]
)
def test_photos_that_cannot_be_compared(runner: CliRunner, tmp_path: Path, photos, message: str, monkeypatch) -> None:
    monkeypatch.setenv("TOPTHREE_MODEL", "efficientnet_lite0")
    (tmp_path / "photos").mkdir()
    for name in photos:
        (tmp_path / "photos" / name).write_bytes(b"\xff\xd8\xffno photo")
    arguments = ["--to", "pt2", "--output", str(tmp_path / "out"), "--photos", str(tmp_path / "photos")]
    result = runner.invoke(cli, ["export", *arguments])
    assert (result.exit_code, message in result.output) == (1, True), result.output
    assert not (tmp_path / "out").exists()


def test_the_command_exports_the_packaged_model(runner: CliRunner, tmp_path: Path) -> None:
    arguments = ["export", "--model", "efficientnet_lite0", "--to", "torchscript", "--output", str(tmp_path / "out")]
    result = runner.invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "Compared with torch on 32 crops" in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.txt", "classify.py", "model.pt"}


def test_metadata_is_one_json_object() -> None:
    values = json.loads(FACTS.to_json())
    assert values["classes"][0] == {"wnid": "n01", "label": "red", "label_zh": "红"}
    assert (values["resize"], values["crop"], values["interpolation"], values["temperature"]) == (
        36,
        32,
        "bicubic",
        0.5,
    )
