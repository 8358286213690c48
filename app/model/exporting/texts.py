"""The README and the example beside an exported model."""

from __future__ import annotations

from ..calibration import Calibration
from ..facts import KEY, Facts
from .formats import Format

_README = """\
{name}, exported by topthree

{file} takes crops: uint8 RGB of shape (n, {crop}, {crop}, 3), any n, values 0 to 255; the normalisation is inside.
It returns logits, float32 (n, {classes}), and embedding, float32 (n, channels).

How to cut the crop of a photo:
1. Decode it, turn it upright as its EXIF orientation says, and convert it to RGB.
2. Resize it to a short side of {resize} pixels ({interpolation}, antialiased as Pillow does); the long side keeps the
   ratio, rounded down.
3. Cut the central square of {crop} x {crop} pixels.

Probabilities are softmax(logits{temperature}).{sure}
The metadata, under the key "{key}", is a JSON object with the names of the classes, the numbers above and the SHA-256
of the weights.{licence}

Example, which needs Pillow, NumPy and {package}:
  python classify.py PHOTO
"""

_EXAMPLE = '''\
"""Print the three most likely classes of a photo: python classify.py PHOTO."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
import {package}

file = str(Path(__file__).with_name("{file}"))
{load}
photo = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
short, crop = min(photo.size), facts["crop"]
size = [side * facts["resize"] // short for side in photo.size]
photo = photo.resize(size, Image.Resampling[facts["interpolation"].upper()])
left, top = (round((side - crop) / 2) for side in photo.size)
pixels = np.array(photo.crop((left, top, left + crop, top + crop)))[None]
{compute}
scores = np.exp((logits - logits.max()) / (facts["temperature"] or 1.0))
for index in np.argsort(-scores)[:3]:
    print(f"{{scores[index] / scores.sum():.4f}} {{facts['classes'][index]['label']}}")
'''


def readme(facts: Facts, chosen: Format) -> str:
    """Return the text that says how to cut the crop of a photo and what the model returns."""
    return _README.format(
        name=facts.name,
        file=chosen.file,
        crop=facts.geometry.crop,
        resize=facts.geometry.resize,
        interpolation=facts.geometry.interpolation,
        classes=len(facts.labels),
        sure=_sure(facts.calibration),
        temperature="" if facts.temperature is None else f" / {facts.temperature:g}",
        key=KEY,
        licence=f" The licence of the weights: {facts.licence}." if facts.licence else "",
        package=chosen.package,
    )


def _sure(calibration: Calibration | None) -> str:
    if calibration is None or calibration.temperature is None or calibration.sure_at is None:
        return ""
    return f" An answer counts as sure from a probability of {calibration.sure_at:g} on.\n{calibration.source}"


def example(chosen: Format) -> str:
    """Return the source of a program that classifies a photo with an exported model, without topthree."""
    return _EXAMPLE.format(**vars(chosen))
