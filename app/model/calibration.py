"""Calibration: the measured numbers that turn a model's logits into probabilities and into a certainty.

A row of `backbones.csv` has the temperature that was published for its weights, and `calibrations.json` the numbers
that we measured ourselves; a model file may have them in its metadata. A calibration on the user's own photos replaces
them. It is a file of the cache, named after the digest of the weights, so that it holds for each precision in which
they are served.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..errors import WeightsError
from ..writing import replacing
from .records import ModelRecord
from .room import not_writable
from .weights import Weights

log = logging.getLogger(__name__)

TABLE = Path(__file__).with_name("calibrations.json")
FOLDER = "calibrations"

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Calibration:
    """Numbers that were measured for one weights file; None means that this one was not measured.

    Probabilities are the softmax of logits / `temperature`. An answer is sure if its first probability, or that of a
    group of classes, is at least `sure_at`. A photo is unlike the known ones if its rejection score, of which each
    model has its own range, is below `unlike_below`. `source` is one English sentence that says where the numbers come
    from, `photos` how many they were measured on. `intervals` has the 95% confidence interval of a number under its
    name, if one was computed.
    """

    temperature: Positive | None
    sure_at: Share | None
    unlike_below: float | None
    source: str
    photos: Count | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the calibration as values that JSON can hold."""
        intervals = {name: list(interval) for name, interval in self.intervals.items()}
        return dataclasses.asdict(self) | {"intervals": intervals}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what `as_json` returned; raises ValueError for anything else, with the member that is wrong."""
        unknown = values.keys() - {known.name for known in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{min(unknown)} is not a member of a calibration")
        return msgspec.convert(dict(values), cls)


def find_calibration(cache: Path, weights: Weights, carried: Calibration | None = None) -> Calibration | None:
    """Return the user's own calibration of these weights, else the one that came with them, else None.

    `carried` is what the metadata of a model file has. A damaged file in the cache is reported in the log and ignored.
    """
    path = calibration_file(cache, weights.sha256)
    try:
        return Calibration.from_json(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("The calibration %s cannot be used (%s) and is ignored.", path, error)
    return published_calibration(weights.record) if weights.is_published else carried


def calibration_file(cache: Path, weights_sha256: str) -> Path:
    """Return the file of the cache that holds the user's own calibration of the weights with this digest."""
    return cache / FOLDER / f"{weights_sha256}.json"


def write_calibration(cache: Path, weights_sha256: str, calibration: Calibration) -> Path:
    """Write the user's own calibration of the weights with this digest as a whole, and return its file.

    Raises WeightsError if the cache cannot be written.
    """
    path = calibration_file(cache, weights_sha256)
    text = json.dumps(calibration.as_json(), indent=1, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, 0o644) as out:
            out.write(text.encode())
    except OSError as error:
        raise WeightsError(not_writable(path.parent, error)) from error
    return path


def published_calibration(record: ModelRecord) -> Calibration | None:
    """Return the numbers that hold for a record's published file; None if there are none."""
    table = _read_table()
    row = table["models"].get(record.name)
    if record.temperature is None:
        return Calibration.from_json(row) if row else None
    common = table["published_temperature"] | {"temperature": record.temperature}
    return Calibration.from_json(common | (row or {}))


@functools.cache
def _read_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
