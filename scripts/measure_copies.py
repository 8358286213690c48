"""Measure how far copies of photos under other names move the accuracy that a training reports.

    TOPTHREE_MODEL=efficientnet_lite0 python scripts/measure_copies.py PHOTOS [--photos 600] [--quality 85]

Trains on some photos of PHOTOS, then on these and a copy of each, which is compressed again and has another name.
Only embeddings are written, in TOPTHREE_CACHE. The exit status is 1 if the accuracies differ by a point or more.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from app.settings import Settings
from app.training.backbones import choose
from app.training.learning import Lesson, learn
from app.training.photosets import PhotoSet, open_photo_set

MAX_MOVE = 1.0


def quiet(name: str, done: int, total: int) -> None:
    """Show no progress."""


def some_of(photo_set: PhotoSet, count: int) -> PhotoSet:
    """Return some photos to learn from, drawn with a fixed seed."""
    photos = [photo for photo in photo_set.photos if not photo.is_held_out]
    drawn = np.sort(np.random.default_rng(0).permutation(len(photos))[:count])
    return dataclasses.replace(photo_set, photos=tuple(photos[place] for place in drawn))


def with_copies(photo_set: PhotoSet, quality: int) -> PhotoSet:
    """Add a copy of each photo that is compressed again as JPEG of this quality."""

    def read(name: str) -> bytes:
        original = name.removesuffix("#copy")
        return photo_set.read(name) if original == name else compress(photo_set.read(original), quality)

    copies = tuple(dataclasses.replace(photo, file=f"{photo.file}#copy") for photo in photo_set.photos)
    return dataclasses.replace(photo_set, photos=photo_set.photos + copies, read=read)


def compress(data: bytes, quality: int) -> bytes:
    """Compress a photo again."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        ImageOps.exif_transpose(image).convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def train(photo_set: PhotoSet, settings: Settings) -> Lesson:
    """Train on photos, and print what was found and how accurate the model is."""
    lesson = learn(choose(photo_set, settings, None, quiet), photo_set, has_flip=True, seed=0, step=quiet)
    share, found = lesson.accuracy, lesson.findings
    print(
        f"{len(found.photos)} photos, {found.near_duplicates} nearly the same as another: right for"
        f" {share.percent:.2f}% ({share.low:.2f} to {share.high:.2f}%)"
    )
    return lesson


def main() -> None:
    """Print both accuracies and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", type=Path)
    parser.add_argument("--photos", dest="count", type=int, default=600, help="how many photos to draw")
    parser.add_argument("--quality", type=int, default=85, help="of the copies, as JPEG")
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    once = some_of(open_photo_set(options.photos), options.count)
    alone, doubled = train(once, settings), train(with_copies(once, options.quality), settings)
    move = doubled.accuracy.percent - alone.accuracy.percent
    print(f"moved by {move:+.2f} points; less than {MAX_MOVE:.0f} is required")
    sys.exit(abs(move) >= MAX_MOVE)


if __name__ == "__main__":
    main()
