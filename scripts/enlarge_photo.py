"""Enlarge a photo to 12 megapixels with light noise, as a phone's camera would have taken it.

usage: python scripts/enlarge_photo.py PHOTO OUTPUT.jpg

4032x3024, Gaussian noise of 4 levels, JPEG quality 88: the large photo of docs/performance.md. The noise keeps
the file as hard to decode as a real one; without it, an enlarged photo compresses to almost nothing.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image, ImageOps

SIZE = (4032, 3024)
NOISE_LEVELS = 4.0
QUALITY = 88


def main(source: str, target: str) -> None:
    """Write the enlarged photo."""
    photo = ImageOps.fit(Image.open(source).convert("RGB"), SIZE, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0.0, NOISE_LEVELS, (SIZE[1], SIZE[0], 3))
    noisy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(target, quality=QUALITY)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
