"""The crops with which an exported file is compared with its network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...photos.crops import read_crops
from ...photos.decoding import Geometry
from ...photos.protocol import MAX_CROP_SIDE
from ...settings import RESOURCES
from ..engines import Pixels

CROPS = 32
SAMPLES = tuple(RESOURCES / "static" / "samples" / f"{name}.webp" for name in ("cat", "coffee", "rocket"))


def sample_crops(geometry: Geometry, samples: Sequence[Path] = SAMPLES) -> Pixels:
    """Cut 32 different crops (32, side, side, 3) of the samples: at nine places, and their mirror images."""
    side = geometry.crop
    larger = min(MAX_CROP_SIDE, side * 3 // 2)
    wide = Geometry(larger, larger, geometry.interpolation)
    places = np.linspace(0, larger - side, 3).astype(int)
    photos = read_crops([str(path) for path in samples], wide, max_pixels=MAX_CROP_SIDE**2 * 4)
    crops = [
        photo[top : top + side, left : left + side][:, ::step]
        for top, left, photo, step in itertools.product(places, places, photos, (1, -1))
    ]
    return np.ascontiguousarray(np.stack(crops[:CROPS]))
