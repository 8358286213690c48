"""The perceptual hash of a picture: 64 bits that stay nearly the same when it is resized or compressed again.

The method is the DCT hash of pHash: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010, section 3.2. The grey picture is averaged to 32 x 32 pixels; of its cosine transform the 8 x 8 lowest frequencies
but those of the first row and column are compared with their median.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

_SIDE, _FREQUENCIES = 32, 8
# Red, green and blue in grey, by ITU-R BT.601.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Decimal places: the frequencies of a picture in one colour are zero except for rounding errors.
_DIGITS = 3


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the hash of an upright picture, uint8 RGB of shape (height, width, 3), as a number of 64 bits."""
    grey = pixels.astype(np.float32) @ _GREY
    rows, columns = (_transform(length) for length in grey.shape)
    frequencies = np.round(rows @ grey @ columns.T, _DIGITS)
    bits = (frequencies > np.median(frequencies)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@functools.lru_cache(maxsize=256)
def _transform(length: int) -> npt.NDArray[np.float32]:
    """Return the matrix (8, length) that averages `length` pixels to 32 and takes their frequencies 1 to 8."""
    places = np.arange(_SIDE)
    angles = np.pi / _SIDE * np.outer(np.arange(1, _FREQUENCIES + 1), places + 0.5)
    return np.asarray(np.sqrt(2 / _SIDE) * np.cos(angles) @ _average(length), np.float32)


def _average(length: int) -> npt.NDArray[np.floating[Any]]:
    """Return the matrix (32, length) of the share of each pixel in each of 32 equal parts of a line."""
    edges = np.arange(_SIDE + 1) * length / _SIDE
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * _SIDE / length)
