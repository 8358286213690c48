"""The metadata of a model file: what a program needs to cut its crop and to read its logits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import WeightsError
from ..photos.decoding import Geometry
from ..photos.protocol import INTERPOLATIONS, MAX_CROP_SIDE
from .calibration import Calibration
from .labels import Label

# The key of ONNX's metadata_props and OpenVINO's rt_info, and the name of torch's extra file.
KEY = "topthree"
FORMAT = 1
_NAMES = ("wnid", "label", "label_zh", "label_gloss")
_TEMPERATURE_ALONE = "The temperature is in the metadata of the model's file."


@dataclass(frozen=True)
class Facts:
    """What a model file says of itself: `calibration` is None where nothing was published or measured."""

    name: str
    weights_sha256: str
    labels: tuple[Label, ...]
    geometry: Geometry
    calibration: Calibration | None = None
    licence: str = ""

    @property
    def temperature(self) -> float | None:
        """Return the number by which the logits are divided; None where none was published or measured."""
        return self.calibration.temperature if self.calibration else None

    def to_json(self) -> str:
        """Return the metadata, one JSON object."""
        classes = [
            {name: value for name in _NAMES if (value := getattr(label, name)) is not None} for label in self.labels
        ]
        values = {
            "format": FORMAT,
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
            **asdict(self.geometry),
            "temperature": self.temperature,
            "calibration": self.calibration and self.calibration.as_json(),
            "classes": classes,
        }
        return json.dumps(values, ensure_ascii=False)


def read_facts(text: str, file: str) -> Facts:
    """Read what `to_json` wrote; raises WeightsError, naming the file, for anything else."""
    try:
        values: dict[str, Any] = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError
        geometry = Geometry(int(values["resize"]), int(values["crop"]), values["interpolation"])
        labels = tuple(
            Label(index, row.get("wnid"), str(row["label"]), row.get("label_zh"), row.get("label_gloss"))
            for index, row in enumerate(values["classes"])
        )
        name, digest, licence = (str(values[key]) for key in ("name", "weights_sha256", "licence"))
        facts = Facts(name, digest, labels, geometry, _calibration(values), licence)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"The metadata {KEY!r} of {file} is not what 'topthree export' writes.") from error
    _check(facts, file)
    return facts


def _calibration(values: dict[str, Any]) -> Calibration | None:
    """Read the calibration; metadata that other programs write may have a temperature alone."""
    whole, temperature = values.get("calibration"), values["temperature"]
    if whole is not None:
        return Calibration.from_json(whole)
    return None if temperature is None else Calibration(float(temperature), None, None, _TEMPERATURE_ALONE)


def _check(facts: Facts, file: str) -> None:
    geometry, temperature = facts.geometry, facts.temperature
    if not 1 <= geometry.crop <= geometry.resize <= MAX_CROP_SIDE or geometry.interpolation not in INTERPOLATIONS:
        raise WeightsError(f"The metadata {KEY!r} of {file} asks for a crop that cannot be cut.")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise WeightsError(f"The metadata {KEY!r} of {file} has a temperature that is not above 0.")
