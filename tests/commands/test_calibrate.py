"""`topthree calibrate`: what it stores, what it tells, and that bad input stores nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fakes import FakeEngine, colour_png, fake_model

from app.commands import cli
from app.errors import WeightsError
from app.model.calibration import Calibration, calibration_file, find_calibration, write_calibration
from app.model.calibration_fit import fit_temperature
from app.model.engines import Inference, Pixels
from app.model.labels import imagenet_labels
from app.model.weights import Weights

COUNT = 320
INTERRUPTED = Path(__file__).parents[1] / "support" / "interrupted.py"
IDS = [label.wnid for label in imagenet_labels()[:3]]


class StrengthEngine(FakeEngine):
    """Answer with the class that a crop's red value names; the green value, over 20, is its logit."""

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        found = super().infer(batch, alone=alone)
        centre = batch.shape[1] // 2
        logits = np.zeros_like(found.logits)
        for row, crop in zip(logits, batch, strict=True):
            row[crop[centre, centre, 0]] = crop[centre, centre, 1] / 20
        return Inference(logits, found.features)


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Have the model answer as `StrengthEngine` does."""
    model = fake_model(StrengthEngine())
    monkeypatch.setattr("app.model.served.load_model", lambda *_: (model, None))
    return model.weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the calibration is kept."""
    monkeypatch.setenv("TOPTHREE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def green_of(place: int) -> int:
    return 128 + 127 * place // COUNT


def truth_of(place: int) -> int:
    """The true class: the one that is answered, more often the higher its logit, 65% in all."""
    is_right = np.random.default_rng(place).random() < 0.3 + 0.7 * place / COUNT
    return place % 3 if is_right else (place + 1) % 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, as many as `COUNT`, of three classes."""
    folder = tmp_path_factory.mktemp("photos")
    for place in range(COUNT):
        write(folder, IDS[truth_of(place)], f"{place}.png", colour_png(place % 3, green_of(place), 0, size=(224, 224)))
    return folder


def write(folder: Path, wnid: str, name: str, data: bytes) -> None:
    (folder / wnid).mkdir(exist_ok=True)
    (folder / wnid / name).write_bytes(data)


def calibrate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["calibrate", *map(str, arguments)])


def stored(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_the_numbers_are_fitted_and_found_by_the_service(photos: Path, cache: Path, weights: Weights) -> None:
    result = calibrate(photos)
    assert result.exit_code == 0, result.output
    logits = np.zeros((COUNT, 1000))
    for place in range(COUNT):
        logits[place, place % 3] = green_of(place) / 20
    expected = fit_temperature(logits, np.array([truth_of(place) for place in range(COUNT)]))
    found = find_calibration(cache, weights)
    assert found is not None
    assert found.temperature == pytest.approx(expected, abs=1e-3)
    assert found.photos == COUNT
    assert found.intervals.keys() == {"temperature", "sure_at", "unlike_below"}
    assert found.source == "Measured by 'topthree calibrate' on 320 labelled photos of this installation."


def test_it_tells_the_numbers_where_they_are_and_how_to_remove_them(
    photos: Path, cache: Path, weights: Weights
) -> None:
    lines = calibrate(photos).stdout.splitlines()
    assert lines[0] == "Measured on 320 photos:"
    assert [line.split()[0] for line in lines[1:4]] == ["temperature", "sure_at", "unlike_below"]
    assert lines[-2] == f"Stored in {calibration_file(cache, weights.sha256)}"
    assert "topthree calibrate --forget" in lines[-1]


def test_forget_removes_the_calibration(photos: Path, cache: Path, weights: Weights) -> None:
    file = calibration_file(cache, weights.sha256)
    assert calibrate("--forget").stdout == "There is no calibration of your own for resnet18.\n"
    calibrate(photos)
    assert calibrate("--forget").stdout == f"Removed {file}\n"
    assert not file.exists()


def refused(cache: Path, *arguments: str | Path, sentence: str) -> None:
    result = calibrate(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert stored(cache) == []


def test_fewer_than_300_photos_are_refused(photos: Path, cache: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(photos / IDS[0], few / IDS[0])
    count = len(os.listdir(few / IDS[0]))
    refused(cache, few, sentence=f"{count} labelled photos can be used, but a calibration needs at least 300.")


def test_unreadable_photos_do_not_count(photos: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(photos, folder)
    for file in sorted(folder.rglob("*.png"))[:21]:
        file.write_bytes(b"")
    refused(cache, folder, sentence="299 labelled photos can be used")


def test_one_unreadable_photo_is_listed_and_the_status_is_1(photos: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "most"
    shutil.copytree(photos, folder)
    write(folder, IDS[0], "bad.png", b"")
    result = calibrate(folder)
    assert f"Not read: {folder / IDS[0] / 'bad.png'}: The file is empty.\n" in result.stdout
    assert (result.exit_code, len(stored(cache))) == (1, 1)


def test_one_class_is_refused(cache: Path, tmp_path: Path) -> None:
    for place in range(300):
        write(tmp_path, IDS[0], f"{place}.png", b"")
    refused(cache, tmp_path, sentence="All photos are of one class")


def test_an_empty_folder_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(cache, tmp_path / "empty", sentence="There is no photo in")


@pytest.fixture(scope="module")
def easy_photos(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which the model names 90% right, more than the 69.8% that are published for it."""
    folder = tmp_path_factory.mktemp("easy")
    for place in range(300):
        truth = (place + (place % 10 == 0)) % 3
        write(folder, IDS[truth], f"{place}.png", colour_png(place % 3, green_of(place), 0, size=(224, 224)))
    return folder


def test_photos_that_may_have_trained_the_model_need_trust(easy_photos: Path, cache: Path) -> None:
    refused(cache, easy_photos, sentence="90.0 % of these photos, much more than the published 69.8 %")
    assert calibrate(easy_photos, "--trust").exit_code == 0
    assert len(stored(cache)) == 1


def test_ctrl_c_stores_nothing(photos: Path, cache: Path) -> None:
    done = subprocess.run([sys.executable, INTERRUPTED, "calibrate", photos], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    said, computed = done.stderr.splitlines()
    assert said == "Stopped before everything was measured; nothing was stored."
    assert stored(cache) == []
    assert int(computed) < COUNT


@pytest.mark.parametrize("arguments", [[], ["--forget", "."]])
def test_either_a_folder_or_forget_is_wanted(arguments: list[str]) -> None:
    result = calibrate(*arguments)
    assert result.exit_code == 2
    assert "Give either a folder of photos or --forget." in result.stderr


def test_a_cache_that_cannot_be_written_is_one_sentence(photos: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TOPTHREE_CACHE", str(tmp_path / "file"))
    result = calibrate(photos)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: The folder {tmp_path / 'file' / 'calibrations'} cannot be written: ")
    assert result.stderr.count("\n") == 1


def test_a_disk_without_room_leaves_the_old_calibration(cache: Path) -> None:
    old = write_calibration(cache, "0" * 64, Calibration(1.5, 0.7, None, "Made by the test."))
    text = old.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(WeightsError, match="cannot be written"):
            write_calibration(cache, "0" * 64, Calibration(2.5, 0.8, None, "Made again."))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stored(cache) == [old]
    assert old.read_bytes() == text
