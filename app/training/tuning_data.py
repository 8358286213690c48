"""Pictures for tuning: each photo decoded once into a square of pixels, and feature maps of views of it.

Both lie in mapped files of the run's folder, so that memory does not grow with the number of photos.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import InterpolationMode, v2

from ..errors import TopthreeError
from ..model.records import ModelRecord
from ..model.room import not_writable
from ..model.solver import Numbers
from ..photos.decoders import Decoders
from ..photos.decoding import Geometry
from ..photos.protocol import MAX_CROP_SIDE, Wanted
from ..processes.plan import SPARE_SLOTS, make_plan
from ..queueing.scheduling import in_order, side_by_side
from ..settings import Settings
from .photosets import MAX_PHOTO_BYTES, LabelledPhoto, PhotoSet, PhotoSetError

# The smallest part of a picture that a random crop shows. Below a third, garments were often not in it.
MIN_CROP_SHARE = 0.35
# In the first epochs random crops are smaller than the crop that serves, which costs half the time. In the last ones
# they are as large, since things must end at the size at which they will be seen (Touvron et al., NeurIPS 2019).
_SMALL = 5 / 7
_SIDE_STEP = 32
MAX_MAP_BYTES = 2 * 2**30
VIEWS = 4
_MIN_VIEWS = 2

Pixels = npt.NDArray[np.uint8]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Crops:
    """Squares of photos: `pixels` (photos, square, square, 3), in the middle of which is the crop that serves.

    `side` is that crop's side; `bicubic` is how the backbone wants pictures scaled.
    """

    pixels: Pixels
    side: int
    bicubic: bool
    has_flip: bool

    @property
    def small_side(self) -> int:
        """Return the side of random crops in the first epochs."""
        return max(_SIDE_STEP, round(self.side * _SMALL / _SIDE_STEP) * _SIDE_STEP)

    def centre(self, places: Sequence[int] | Numbers, *, mirrored: bool = False) -> torch.Tensor:
        """Return the crops that serve, uint8 (photos, side, side, 3)."""
        start = (self.pixels.shape[1] - self.side) // 2
        part = slice(start, start + self.side)
        found = np.stack([self.pixels[place, part, part] for place in places])
        return torch.from_numpy(np.ascontiguousarray(found[:, :, ::-1] if mirrored else found))

    def random(self, places: Sequence[int] | Numbers, side: int) -> torch.Tensor:
        """Return a random view of each photo, uint8 (photos, side, side, 3), by torch's random numbers."""
        change = self._changes(side)
        views = [change(torch.from_numpy(self.pixels[place].copy()).permute(2, 0, 1)) for place in places]
        return torch.stack(views).permute(0, 2, 3, 1).contiguous()

    def _changes(self, side: int) -> Callable[[torch.Tensor], torch.Tensor]:
        how = InterpolationMode.BICUBIC if self.bicubic else InterpolationMode.BILINEAR
        steps: list[Any] = [
            v2.RandomResizedCrop(side, scale=(MIN_CROP_SHARE, 1.0), interpolation=how, antialias=True),
            v2.TrivialAugmentWide(),
        ]
        changes: Callable[[torch.Tensor], torch.Tensor] = v2.Compose(
            [v2.RandomHorizontalFlip(), *steps] if self.has_flip else steps
        )
        return changes


def square_of(record: ModelRecord) -> Geometry:
    """Return the geometry of the square that is kept of a photo, which is about as large as its shorter side."""
    geometry = record.geometry
    side = min(geometry.resize, MAX_CROP_SIDE)
    # A crop's corner is rounded. With a margin that is an even number on each side, the crop stays in the middle.
    side -= (side - geometry.crop) % 4
    return Geometry(geometry.resize, side, geometry.interpolation)


def decode_squares(
    photo_set: PhotoSet,
    photos: Sequence[LabelledPhoto],
    wanted: Wanted,
    settings: Settings,
    *,
    path: Path,
    report: Report,
) -> Pixels:
    """Decode the wanted crop of photos in the decoders, once, into the file `path`.

    A file that exists must be that of the same photos. Raises PhotoSetError if a photo can no longer be read, or if
    the disk is full.
    """
    side = wanted.geometry.crop

    def fill(rows: npt.NDArray[Any]) -> None:
        for place, pixels in enumerate(_decoded(photo_set, photos, wanted, settings)):
            rows[place] = pixels
            report(place + 1, len(photos))

    return mapped(path, (len(photos), side, side, 3), np.uint8, fill)


def _decoded(
    photo_set: PhotoSet, photos: Sequence[LabelledPhoto], wanted: Wanted, settings: Settings
) -> Iterator[Pixels]:
    plan = make_plan(settings)
    decoders = Decoders(plan.decoders, max_bytes=MAX_PHOTO_BYTES, memory_bytes=plan.photo_memory_bytes)

    def work(photo: LabelledPhoto) -> Pixels:
        try:
            return decoders.decode(photo_set.read(photo.file), wanted).crop
        except TopthreeError as error:
            raise PhotoSetError(f"{photo.file} was changed while it was being learnt: {error}") from error

    with closing(decoders):
        decoders.start()
        yield from in_order(side_by_side(work, photos, plan.cpus + SPARE_SLOTS))


def mapped(
    path: Path, shape: tuple[int, ...], kind: type[np.generic], fill: Callable[[npt.NDArray[Any]], None]
) -> npt.NDArray[Any]:
    """Map the array of a file, which is filled first if it is not there as a whole; it appears when it is full.

    Raises PhotoSetError if the disk is full.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    try:
        if not path.exists() or path.stat().st_size != size:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
                try:
                    # Take the room now: a write to mapped memory that finds no room would end the process.
                    os.posix_fallocate(file.fileno(), 0, size)
                    rows = np.memmap(file.file, kind, "r+", shape=shape)
                    fill(rows)
                    rows.flush()
                    os.replace(file.name, path)
                finally:
                    Path(file.name).unlink(missing_ok=True)
        return np.memmap(path, kind, "r", shape=shape)
    except OSError as error:
        raise PhotoSetError(not_writable(path.parent, error)) from error


def views_within(photos: int, map_bytes: int) -> int:
    """Return how many views of each photo may be kept, as maps of `map_bytes` each; 0 if fewer than two."""
    views = min(VIEWS, MAX_MAP_BYTES // max(1, photos * map_bytes))
    return int(views) if views >= _MIN_VIEWS else 0
