"""Heat maps: class activation maps, as numbers and drawn over their photo."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_SIDE = 1024
OPACITY = 0.7
# A heat map is 49 numbers; a thousand for each photo of a batch would be megabytes.
MAX_HEATMAPS = 10
# The share of the overlay's opacity where the map is 0, and how much darker the photo is outside the crop.
FLOOR = 0.35
OUTSIDE = 0.62
# From dark blue to yellow, brighter with every step, so that people who confuse red and green read it in order.
COLOURS = ((38, 20, 90), (44, 82, 150), (32, 145, 140), (128, 196, 84), (253, 231, 60))
STOPS = np.array(COLOURS, np.float32)
# What the page's script must know to draw as the server does.
FACTS = {"colours": COLOURS, "floor": FLOOR, "outside": OUTSIDE, "most": MAX_HEATMAPS}

Floats = npt.NDArray[np.float32]
Grid = list[list[float]]


def class_activation_map(features: Floats, class_weights: Floats) -> Floats:
    """Return where a class was seen: features (C, h, w) weighted by the class's row (C), from 0 to 1.

    That is max(0, Σ_k w_k · features_k) divided by its maximum, without the bias (Zhou et al., "Learning Deep
    Features for Discriminative Localization", CVPR 2016); all zeros if no feature supports the class.
    """
    activation = np.maximum(np.tensordot(class_weights, features, axes=1), 0)
    return np.asarray(activation / (activation.max() or 1), dtype=np.float32)


def activation_maps(features: Floats, rows: Floats) -> list[Grid]:
    """Return the class activation maps of several classes as lists of numbers, rounded to 4 digits."""
    maps = [class_activation_map(features, row) for row in rows]
    return [[[round(float(value), 4) for value in line] for line in grid] for grid in maps]


def draw(photo: npt.NDArray[np.uint8], grid: Sequence[Sequence[float]], crop: Mapping[str, float], kind: str) -> bytes:
    """Lay a heat map over a photo and encode the result as `kind`, PNG or WEBP.

    `photo` is uint8 RGB of shape (height, width, 3). `grid` holds numbers from 0 to 1 that cover `crop`, the edges as
    fractions of the photo; outside it the photo is darkened, since the model never saw that.
    """
    pixels = photo.astype(np.float32)
    height, width = pixels.shape[:2]
    left, right = _span(crop["left"], crop["right"], width)
    top, bottom = _span(crop["top"], crop["bottom"], height)
    drawn = pixels * (1 - OUTSIDE)
    values = enlarge(np.asarray(grid, np.float32), bottom - top, right - left)
    share = (OPACITY * (FLOOR + (1 - FLOOR) * values))[..., None]
    drawn[top:bottom, left:right] = pixels[top:bottom, left:right] * (1 - share) + colours(values) * share
    return encode(np.rint(drawn).astype(np.uint8), kind)


def encode(pixels: npt.NDArray[np.uint8], kind: str) -> bytes:
    """Encode RGB pixels, of shape (height, width, 3), as PNG, WEBP or JPEG, without metadata."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return encoded.getvalue()


def _span(start: float, stop: float, length: int) -> tuple[int, int]:
    """Turn fractions into whole pixels, at least one, since a long thin photo's crop may be less."""
    first = min(round(start * length), length - 1)
    return first, max(first + 1, round(stop * length))


def colours(values: Floats) -> Floats:
    """Return the colour of each value from 0 to 1: red, green and blue from 0 to 255."""
    places = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(values, places, channel) for channel in STOPS.T], axis=-1).astype(np.float32)


def enlarge(grid: Floats, height: int, width: int) -> Floats:
    """Interpolate a grid between the centres of its cells."""
    image = Image.fromarray(grid)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
