"""Quantisation is judged by paired differences on photos it was not calibrated with, and refused when it loses."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import colour_png
from references import SHARED_PHOTOS, needs_test_weights

from app.commands import cli
from app.errors import WeightsError
from app.model import quantise
from app.model.engines import may_overflow
from app.model.labels import imagenet_labels
from app.model.quantise import Comparison, QuantisationRefused, compare
from app.model.runtime import import_openvino
from app.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_paired_differences_and_their_interval() -> None:
    truth = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    fp32 = np.array([1, 2, 3, 4, 5, 6, 7, 8, 0, 0])
    int8 = np.array([1, 2, 3, 4, 5, 6, 0, 0, 9, 0])
    found = compare(fp32, int8, truth, calibration_photos=50)
    assert (found.photos, found.labelled_photos, found.calibration_photos) == (10, 10, 50)
    assert (found.top1_fp32, found.top1_int8, found.agreement) == (80.0, 70.0, 70.0)
    # Differences: six 0, two -1, one +1, one 0: mean -0.1, deviation 0.5676, half an interval 1.96 · 0.5676 / √10.
    assert (found.top1_change, found.top1_change_low, found.top1_change_high) == (-10.0, -45.18, 25.18)


def test_unlabelled_photos_count_for_agreement_alone() -> None:
    found = compare(np.array([1, 2]), np.array([1, 3]), np.array([-1, -1]), calibration_photos=1)
    assert (found.agreement, found.labelled_photos, found.top1_change) == (50.0, 0, None)


def comparison(agreement: float = 95.0, change: float | None = 0.0) -> Comparison:
    return Comparison(50, 50, 50, agreement, 80.0, 80.0, change, -1.0, 1.0)


@pytest.mark.parametrize(
    ("found", "max_drop", "reason"),
    [
        (comparison(change=-1.01), 1.0, "Top-1 falls by 1.01 points"),
        (comparison(agreement=92.99), 1.0, "Only 92.99%"),
        (comparison(agreement=92.99, change=None), 1.0, "Only 92.99%"),
        (comparison(change=-0.5), 0.0, "more than the 0 of --max-drop"),
    ],
)
def test_the_gate_refuses(found: Comparison, max_drop: float, reason: str) -> None:
    with pytest.raises(QuantisationRefused, match=reason):
        quantise._gate(found, max_drop)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(WeightsError, match=r"^--precision int8 needs nncf: pip install -e '\.\[optimize\]'$"):
        quantise._quantise_graph(None, [], tmp_path, 0, False)


@pytest.mark.parametrize("found", [comparison(change=-1.0), comparison(agreement=93.0), comparison(change=None)])
def test_the_gate_lets_pass(found: Comparison) -> None:
    quantise._gate(found, 1.0)
    assert "weak evidence: fewer than 1000 photos" in quantise._summary(found, 1.0)


def test_calibration_and_judgement_never_share_a_photo() -> None:
    for count in (20, 101, 5000):
        calibration, evaluation = quantise._split(count)
        assert not set(calibration) & set(evaluation)
        assert len(calibration) == min(count // 2, quantise.MAX_CALIBRATION_PHOTOS)
        assert sorted(calibration + evaluation) == list(range(count))
        assert quantise._split(count) == (calibration, evaluation)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "go together"),
        (["--calibrate", "."], "go together"),
        (["--precision", "int8", "--calibrate", "missing"], "does not exist"),
    ],
)
def test_int8_and_its_photos_go_together(runner: CliRunner, arguments: list[str], message: str) -> None:
    result = runner.invoke(cli, ["prepare", *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_too_few_photos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(colour_png(1))
    with pytest.raises(quantise.FileProblem, match="holds 1 photos; calibration takes at least 20"):
        quantise._labelled(tmp_path, imagenet_labels())


@needs_test_weights
def test_forty_shared_photos_make_an_int8_model_that_serves(resnet18_settings: Settings, tmp_path: Path) -> None:
    for photo in sorted(Path(SHARED_PHOTOS).glob("*.jpg"))[:40]:
        (tmp_path / photo.name).symlink_to(photo)
    command = [sys.executable, "-m", "app", "prepare", "--precision", "int8", "--calibrate", str(tmp_path)]
    command += ["--keep-last", "3"]
    environment = os.environ | resnet18_settings.as_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "paired difference" in done.stdout
    (manifest,) = (resnet18_settings.cache / "prepared").glob("resnet18-*-int8-*/manifest.json")
    accuracy = json.loads(manifest.read_text())["accuracy"]
    assert accuracy["calibration_photos"] == accuracy["photos"] == 20
    assert accuracy["agreement"] >= quantise.MIN_AGREEMENT_PERCENT
    graph = import_openvino().Core().read_model(manifest.with_name("model.xml"))
    layers = [node for node in graph.get_ordered_ops() if node.get_type_name() in quantise._LAYERS]
    quantised = [node.input_value(0).get_node().get_type_name() == "FakeQuantize" for node in layers]
    assert quantised[-8:] == [True] * 4 + [False] * 4  # the classifier and the three layers before it


@pytest.mark.parametrize(("least", "layers", "tried"), [(0, 9, 1), (1, 9, 2), (5, 9, 7), (9, 9, 6), (3, 3, 5)])
def test_auto_finds_the_fewest_layers_that_pass(least: int, layers: int, tried: int) -> None:
    counts: list[int] = []

    def attempt(keep_last: int) -> Comparison:
        counts.append(keep_last)
        found = comparison(agreement=95.0 if keep_last >= least else 92.0)
        quantise._gate(found, 1.0)
        return found

    lines: list[str] = []
    assert quantise._fewest(attempt, layers, lines.append).agreement == 95.0
    assert counts[-1] == least  # whose artifact is the one that stays
    assert lines[-1] == f"The fewest layers in float32 that pass are {least} before the classifier."
    assert len(set(counts)) <= tried


@pytest.mark.parametrize(
    ("flags", "passes", "tried"),
    [
        ("flags : sse4_2 avx2 fma", {False, True}, [False]),
        ("flags : sse4_2 avx2 fma", {True}, [False, True]),
        ("flags : sse4_2 avx2 fma", set(), [False, True]),
        ("flags : avx2 avx512_vnni", {True}, [False]),
        ("flags : avx2 avx_vnni", {True}, [False]),
        ("Features : fp asimd asimddp", {True}, [False]),
    ],
)
def test_narrow_weights_are_tried_where_sums_overflow(
    flags: str, passes: set[bool], tried: list[bool], tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    seen: list[bool] = []

    def attempt(is_narrow: bool) -> Comparison:
        seen.append(is_narrow)
        if is_narrow not in passes:
            raise QuantisationRefused("no")
        return comparison()

    expected = contextlib.nullcontext() if passes & set(tried) else pytest.raises(QuantisationRefused)
    with expected:
        quantise._wide_or_narrow(attempt, may_overflow(tmp_path / "cpuinfo"), lambda line: None)
    assert seen == tried


def test_auto_says_if_no_number_of_layers_passes() -> None:
    def attempt(keep_last: int) -> Comparison:
        raise QuantisationRefused("no")

    with pytest.raises(QuantisationRefused, match="up to all 5 before the classifier, passes; nothing was written"):
        quantise._fewest(attempt, 5, lambda line: None)


def test_keep_last_is_a_number_or_auto(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["prepare", "--keep-last", "some"])
    assert (result.exit_code, "neither a number of layers nor auto" in result.output) == (2, True)
