"""Folders of labelled photos for training, and embeddings that stand for photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image

PICTURES = {"cat": skimage.data.chelsea, "coffee": skimage.data.coffee, "rocket": skimage.data.rocket}
SIDE = 200


def write_photos(folder: Path, count: int = 4) -> Path:
    """Write different parts of a picture for each class."""
    for label, picture in PICTURES.items():
        (folder / label).mkdir(parents=True)
        image = Image.fromarray(picture())
        for number in range(count):
            left = number * (image.width - SIDE) // max(1, count - 1)
            part = image.crop((left, 20 * number, left + SIDE, 20 * number + SIDE))
            part.save(folder / label / f"{number}.jpg", quality=90)
    return folder


def embeddings(classes: npt.NDArray[np.intp], *, channels: int = 64, spread: float = 1.0) -> npt.NDArray[np.float16]:
    """Make rows (photos, 2, channels) of length 1, scattered around a direction for each class."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(int(classes.max()) + 1, 1, channels))
    first = centres[classes] + spread * random.normal(size=(len(classes), 1, channels))
    return of_length_one(np.concatenate([first, first + 0.1 * random.normal(size=first.shape)], axis=1))


def copies_of(rows: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Make rows that differ from others by as little as those of a photo that was compressed again."""
    noise = np.random.default_rng(4).normal(size=rows.shape)
    return of_length_one(rows + 0.2 * noise / np.linalg.norm(noise, axis=2, keepdims=True))


def of_length_one(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """Divide rows by their length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=2, keepdims=True), np.float16)
