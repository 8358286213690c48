"""A calibration is read as it was written, and the user's own comes before the published one."""

from __future__ import annotations

import dataclasses
import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from app.errors import WeightsError
from app.model.calibration import (
    TABLE,
    Calibration,
    calibration_file,
    find_calibration,
    published_calibration,
    write_calibration,
)
from app.model.records import RECORDS, ModelRecord
from app.model.weights import Weights

OWN = Calibration(1.5, 0.7, -3.25, "Measured on photos of birds.", 300, {"temperature": (1.4, 1.6)})
RESNET18 = RECORDS["resnet18"]


def weights_of(record: ModelRecord, sha256: str = "") -> Weights:
    return Weights(Path("w.pth"), sha256 or record.sha256.ljust(64, "0"), record, "cache")


@pytest.mark.parametrize("calibration", [OWN, Calibration(None, None, None, "Not measured.")])
def test_json_gives_the_same_calibration_back(calibration: Calibration) -> None:
    text = json.dumps(calibration.as_json())
    assert Calibration.from_json(json.loads(text)) == calibration


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": "1.5"}, "temperature"),
        ({"sure_at": 1.1}, "sure_at"),
        ({"photos": 0}, "photos"),
        ({"source": None}, "source"),
        ({"intervals": {"sure_at": [0.5]}}, "intervals"),
        ({"limit": 1}, "limit"),
    ],
)
def test_other_json_is_refused_with_the_member(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Calibration.from_json(OWN.as_json() | change)


def test_ones_own_calibration_replaces_the_published(tmp_path: Path) -> None:
    weights = weights_of(RESNET18)
    assert find_calibration(tmp_path, weights) == published_calibration(RESNET18)
    path = write_calibration(tmp_path / "new", weights.sha256, OWN)
    assert find_calibration(tmp_path / "new", weights) == OWN
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_other_weights_have_no_published_calibration(tmp_path: Path) -> None:
    assert find_calibration(tmp_path, weights_of(RESNET18, "ab" * 32)) is None
    assert find_calibration(tmp_path, weights_of(RESNET18, "ab" * 32), OWN) == OWN


@pytest.mark.parametrize("content", [b"", b"[]", b'{"temperature": "warm"}', b"\xff"])
def test_a_damaged_file_is_logged_and_ignored(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = calibration_file(tmp_path, RESNET18.sha256)
    path.parent.mkdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert find_calibration(tmp_path, weights_of(RESNET18)) == published_calibration(RESNET18)
    assert str(path) in caplog.text


def test_a_cache_that_cannot_be_written_has_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "calibrations").write_text("a file where the folder would be")
    with pytest.raises(WeightsError, match="cannot be written"):
        write_calibration(tmp_path, RESNET18.sha256, OWN)


def test_a_published_temperature_brings_the_common_threshold() -> None:
    found = published_calibration(RESNET18)
    assert found is not None
    assert (found.temperature, found.sure_at, found.unlike_below) == (1.10, 0.85, None)
    assert published_calibration(dataclasses.replace(RESNET18, temperature=None)) is None


def test_the_table_names_models_of_the_other_table_only() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert table["models"].keys() <= RECORDS.keys()
    for name in table["models"]:
        assert published_calibration(RECORDS[name]) is not None
