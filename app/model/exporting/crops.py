"""The crops with which an exported file is compared with its network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from ...errors import Problem
from ...photos.decoders import Decoders
from ...photos.decoding import Geometry
from ...photos.folders import MAX_FILE_BYTES, FileProblem, read_file
from ...photos.protocol import MAX_CROP_SIDE, Wanted
from ...settings import RESOURCES
from ..engines import Pixels

CROPS = 32
SAMPLES = tuple(RESOURCES / "static" / "samples" / f"{name}.webp" for name in ("cat", "coffee", "rocket"))
_MAX_PHOTO_MEMORY = 2**30


def photo_crops(files: Sequence[str], geometry: Geometry, max_pixels: int) -> Pixels:
    """Cut the crop of each photo, uint8 RGB (n, side, side, 3); raises FileProblem for one that cannot be decoded."""
    wanted, crops = Wanted(geometry, max_pixels), []
    with closing(Decoders(1, max_bytes=MAX_FILE_BYTES, memory_bytes=_MAX_PHOTO_MEMORY)) as decoders:
        for file in files:
            try:
                crops.append(decoders.decode(read_file(file), wanted).crop.copy())
            except (Problem, OSError) as error:
                raise FileProblem(f"{file} cannot be used to compare: {error}") from error
    return np.stack(crops)


def sample_crops(geometry: Geometry, samples: Sequence[Path] = SAMPLES) -> Pixels:
    """Cut 32 different crops (32, side, side, 3) of the samples: at nine places, and their mirror images."""
    side = geometry.crop
    larger = min(MAX_CROP_SIDE, side * 3 // 2)
    wide = Geometry(larger, larger, geometry.interpolation)
    places = np.linspace(0, larger - side, 3).astype(int)
    crops = [
        photo[top : top + side, left : left + side][:, ::step]
        for top, left, photo, step in itertools.product(
            places, places, photo_crops([str(path) for path in samples], wide, MAX_CROP_SIDE**2 * 4), (1, -1)
        )
    ]
    return np.ascontiguousarray(np.stack(crops[:CROPS]))
