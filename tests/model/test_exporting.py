"""An exported file computes what its network computes, says how to use it, runs alone, and serves again."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fakes import colour_png, share_decoders
from own_heads import own_model
from torch import nn

from app.commands import cli
from app.model import head_bias, load_model, quantise
from app.model.artifact import ensure_prepared
from app.model.calibration import Calibration
from app.model.exporting import folder as exporting
from app.model.exporting.crops import CROPS, SAMPLES, sample_crops
from app.model.exporting.files import LOAD, WRITE, WithEmbedding, WithOwnHead, infer
from app.model.exporting.folder import ExportRefused, compare_embeddings, compare_logits, export_network
from app.model.exporting.formats import FORMATS
from app.model.facts import KEY, Facts
from app.model.heads import own_logits
from app.model.labels import Label
from app.model.own_models import write_version
from app.model.weights import packaged_weights
from app.photos.crops import read_crops
from app.photos.decoding import Geometry
from app.settings import Settings

pytestmark = pytest.mark.slow

SIDE = 32
GEOMETRY = Geometry(36, SIDE, "bicubic")
LABELS = (Label(0, "n01", "red", "红"), Label(1, None, "green", None, "the colour"), Label(2, None, "blue", None))
CALIBRATION = Calibration(0.5, 0.9, None, "Made by the test.", 300, {"temperature": (0.4, 0.6)})
FACTS = Facts("colours", "ab" * 32, LABELS, GEOMETRY, CALIBRATION, "CC0-1.0")
# Runs programs, each with the same argument, in a process that cannot import the package.
ALONE = """
import runpy, sys
sys.modules["app"] = None
programs = sys.argv[2:]
for program in programs:
    runpy.run_path(program)
    print("ended")
"""


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


def test_each_format_can_be_written_and_read() -> None:
    assert WRITE.keys() == LOAD.keys() == FORMATS.keys()


@pytest.fixture(scope="module")
def export(network: nn.Module, crops: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Export the network in a format, once for all tests."""

    @functools.cache
    def make(to: str) -> Path:
        folder = tmp_path_factory.mktemp("exported") / to
        assert export_network(network, FACTS, crops, to, folder) < 1e-5
        return folder

    return make


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, export: Callable[[str], Path]) -> Path:
    return export(request.param)


@pytest.fixture(autouse=True)
def shared_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no decoders for a single command; those of the samples' crops, which are cut before, are their own."""
    share_decoders(monkeypatch, "app.photos.crops")


def test_samples_make_32_different_crops(crops: np.ndarray) -> None:
    assert crops.shape == (CROPS, SIDE, SIDE, 3)
    assert len({crop.tobytes() for crop in crops}) == CROPS


def test_the_file_computes_logits_and_embedding(exported: Path, network: nn.Module, crops: np.ndarray) -> None:
    found = LOAD[exported.name](exported / FORMATS[exported.name].file)(crops[:5])
    for ours, theirs in zip(found, infer(network, crops[:5]), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 1e-4


def test_the_examples_run_without_this_package(export: Callable[[str], Path], network: nn.Module) -> None:
    programs = [str(export(to) / "classify.py") for to in FORMATS]
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(SAMPLES[1]), *programs]
    done = subprocess.run(command, cwd=Path(programs[0]).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = infer(network, np.stack(read_crops([str(SAMPLES[1])], GEOMETRY, max_pixels=10**7)))[0][0] / 0.5
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    answers = done.stdout.split("ended\n")
    assert answers.pop() == ""
    assert len(answers) == len(FORMATS)
    for answer in answers:
        rows = [line.split(" ", 1) for line in answer.splitlines()]
        assert [name for _, name in rows] == [LABELS[index].label for index in np.argsort(-expected)]
        assert np.allclose([float(number) for number, _ in rows], np.sort(expected)[::-1], atol=0.02)


def test_the_readme_says_how_to_cut_the_crop(exported: Path) -> None:
    text = (exported / "README.txt").read_text()
    assert "short side of 36 pixels (bicubic" in text
    assert "softmax(logits / 0.5). An answer counts as sure from a probability of 0.9 on." in text
    assert "Made by the test." in text
    assert "The licence of the weights: CC0-1.0." in text
    assert len((exported / "classify.py").read_text().splitlines()) <= 30


def test_an_exported_file_serves(exported: Path, make_settings: Callable[..., Settings], crops, network) -> None:
    if exported.name not in ("onnx", "openvino"):
        pytest.skip("torch's own formats do not serve")
    model, _ = load_model(make_settings(model=exported / FORMATS[exported.name].file))
    assert model.identity["name"] == "file/colours"
    assert model.labels == LABELS
    assert model.weights.record.geometry == GEOMETRY
    assert model.judge.calibration == CALIBRATION
    assert model.engine.grid == (4, 4)
    assert np.abs(model.head.weight - network.backbone.last.weight.numpy()).max() < 1e-4
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
    with pytest.raises(ExportRefused, match="gives other embeddings than torch; nothing was written"):
        compare_embeddings(torchs, torchs * 1.1, "model.onnx")
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
    ("photos", "message"), [((), "There is no photo in"), (("bad.jpg",), "bad.jpg cannot be used: ")]
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
    assert values["calibration"]["sure_at"] == 0.9
    assert values["classes"][0] == {"wnid": "n01", "label": "red", "label_zh": "红"}
    assert (values["resize"], values["crop"], values["interpolation"], values["temperature"]) == (
        36,
        32,
        "bicubic",
        0.5,
    )


@pytest.mark.parametrize("to", FORMATS)
def test_a_head_of_ones_own_is_exported_on_its_backbone(to: str, crops, tmp_path: Path, make_settings) -> None:
    with torch.random.fork_rng():
        backbone = Tiny()
    numbers = np.random.default_rng(1)
    weight, bias = (numbers.normal(size=shape).astype(np.float32) * 3 for shape in ((3, 8), (3,)))
    own = WithOwnHead(backbone, weight, bias).eval().requires_grad_(False)
    assert export_network(own, FACTS, crops, to, tmp_path / to) < 1e-5
    logits, embedding = LOAD[to](tmp_path / to / FORMATS[to].file)(crops[:5])
    assert np.abs(own_logits(embedding, weight, bias) - logits).max() < 1e-4
    if to in ("onnx", "openvino"):
        model, _ = load_model(make_settings(model=tmp_path / to / FORMATS[to].file))
        assert np.abs(model.head.weight - weight).max() < 1e-3
        assert np.abs(head_bias(model) - bias).max() < 1e-3


def test_the_command_exports_a_model_of_ones_own(
    runner: CliRunner, tmp_path: Path, monkeypatch, real_photos: dict[str, bytes]
) -> None:
    weights = packaged_weights("")
    names = ["cat", "cup", "rocket"]
    head = own_model(
        *names, channels=1280, backbone=weights.record.name, weights_sha256=weights.sha256, calibration=CALIBRATION
    )
    write_version(tmp_path / "models", "pets", head)
    monkeypatch.setenv("TOPTHREE_MODELS", str(tmp_path / "models"))
    (tmp_path / "photos").mkdir()
    for name, data in real_photos.items():
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(data)
    arguments = ["export", "--model", "pets", "--to", "torchscript", "--output", str(tmp_path / "out")]
    result = runner.invoke(cli, [*arguments, "--photos", str(tmp_path / "photos")])
    assert result.exit_code == 0, result.output
    assert "Compared with torch on 3 " in result.output
    file = tmp_path / "out" / "model.pt"
    with zipfile.ZipFile(file) as archive:
        facts = json.loads(archive.read(f"model/extra/{KEY}"))
    assert (facts["name"], facts["calibration"]["sure_at"]) == ("pets", CALIBRATION.sure_at)
    assert [each["label"] for each in facts["classes"]] == names
    logits, embedding = LOAD["torchscript"](file)(sample_crops(weights.record.geometry)[:1])
    assert np.abs(own_logits(embedding, head.weight, head.bias) - logits).max() < 1e-3


def test_a_head_on_other_weights_is_not_exported(runner: CliRunner, tmp_path: Path, monkeypatch) -> None:
    write_version(tmp_path / "models", "pets", own_model(channels=1280, backbone="efficientnet_lite0"))
    monkeypatch.setenv("TOPTHREE_MODELS", str(tmp_path / "models"))
    arguments = ["export", "--model", "pets", "--to", "torchscript", "--output", str(tmp_path / "out")]
    result = runner.invoke(cli, arguments)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "pets is a head on weights of efficientnet_lite0 with SHA-256" in result.output
    assert not (tmp_path / "out").exists()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty-four photos, each of another colour."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, (red, green) in enumerate(itertools.product(range(0, 256, 50), range(0, 256, 80))):
        (folder / f"{place}.png").write_bytes(colour_png(red, green, 255 - red, size=(64, 64)))
    return folder


def test_a_model_file_becomes_int8_and_a_bundle(
    runner: CliRunner, network: nn.Module, crops, photos: Path, tmp_path: Path, make_settings, monkeypatch
) -> None:
    pytest.importorskip("nncf", reason="needs the extra 'optimize'")
    # A network of one layer and random weights is often of two minds about a colour.
    monkeypatch.setattr(quantise, "MIN_AGREEMENT_PERCENT", 75.0)
    export_network(network, FACTS, crops, "onnx", tmp_path / "out")
    file = tmp_path / "out" / "model.onnx"
    monkeypatch.setenv("TOPTHREE_MODEL", str(file))
    result = runner.invoke(cli, ["prepare", "--precision", "int8", "--calibrate", str(photos)])
    assert result.exit_code == 0, result.output
    settings = make_settings(model=file, precision="int8")
    result = runner.invoke(cli, ["bundle", "--precision", "int8", "--output", str(tmp_path / "colours.tar")])
    assert result.exit_code == 0, result.output
    monkeypatch.delenv("TOPTHREE_MODEL")
    bundled = make_settings(bundle=tmp_path / "colours.tar")
    for model in (load_model(settings)[0], load_model(bundled)[0]):
        assert (model.identity["name"], model.engine.precision) == ("file/colours", "int8")
        assert (model.labels, model.judge.calibration) == (LABELS, CALIBRATION)
        assert model.head is not None
        assert (model.engine.infer(crops).logits.argmax(1) == infer(network, crops)[0].argmax(1)).mean() > 0.9
    quantised = ensure_prepared(settings).folder / "model.xml"
    monkeypatch.setenv("TOPTHREE_MODEL", str(quantised))
    result = runner.invoke(cli, ["prepare", "--precision", "int8", "--calibrate", str(photos)])
    assert (result.exit_code, "is quantised already: serve it as it is" in result.output) == (1, True)


def test_a_bundle_of_a_model_file_gets_a_name_without_a_folder(
    runner: CliRunner, network: nn.Module, crops, tmp_path: Path, monkeypatch
) -> None:
    export_network(network, FACTS, crops, "openvino", tmp_path / "out")
    monkeypatch.setenv("TOPTHREE_MODEL", str(tmp_path / "out" / "model.xml"))
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(cli, ["bundle"])
    assert result.exit_code == 0, result.output
    assert [path.name.partition("-fp32")[0] for path in tmp_path.glob("*.tar")] == ["topthree-file-colours"]
