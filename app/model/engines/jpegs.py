"""Crops of JPEG files that are decoded on the device, and the test that decides whether they may be.

torchvision decodes them, on a GPU with nvJPEG, which takes no time of the processors. It deprecates its decoders;
with a release that has none, the processors decode all photos. The crop is the one that `photos.decoding` makes, but
for the rounding of samples: nvJPEG fills in colours more simply than libjpeg, and a large photo is not decoded at a
reduced size.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as operations

from ...photos.decoding import Geometry, decode
from ...photos.device_jpegs import chroma_factors, without_metadata
from ..heads import Floats
from ..probabilities import softmax
from .base import Pixels

# What must hold for the logits of the test's photos, compared with those of crops that the processor makes.
MIN_EQUAL = 0.99
MAX_DIFFERENCE = 0.02
_MAX_TEST_PIXELS = 10_000_000
_ORIENTATION_TAG = 0x0112
# The weights of red, green and blue (JFIF, by ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
# EXIF orientation → whether the stored crop is transposed, and then along which of its axes (2 is y, 3 is x) flipped.
_TO_UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (3,)),
    3: (False, (2, 3)),
    4: (False, (2,)),
    5: (True, ()),
    6: (True, (3,)),
    7: (True, (2, 3)),
    8: (True, (2,)),
}


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file whose markers and size were checked, and the EXIF orientation in which it is stored."""

    data: bytes
    orientation: int = 1


def decode_crops(files: Sequence[Jpeg], geometry: Geometry, device: str) -> torch.Tensor:
    """Return the crops of files, uint8 RGB of shape (n, side, side, 3) on the device; raises RuntimeError for all.

    Pictures of one size are resized together. What a GPU decodes gets the colours that libjpeg would fill in.
    """
    from torchvision import io as torchvision_io  # which takes as long as torch itself; most devices decode nothing

    data = [torch.frombuffer(bytearray(each.data), dtype=torch.uint8) for each in files]
    pictures = torchvision_io.decode_jpeg(data, mode=torchvision_io.ImageReadMode.RGB, device=device)
    alike: dict[tuple[torch.Size, int, tuple[int, int]], list[int]] = {}
    for place, (each, picture) in enumerate(zip(files, pictures, strict=True)):
        factors = (1, 1) if device == "cpu" else chroma_factors(each.data)
        alike.setdefault((picture.shape, each.orientation, factors), []).append(place)
    crops = torch.empty((len(files), 3, geometry.crop, geometry.crop), device=device)
    for (_, orientation, factors), places in alike.items():
        group = torch.stack([pictures[place] for place in places]).float()
        crops[places] = _crop(smooth_chroma(group, factors), orientation, geometry)
    return crops.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def smooth_chroma(pictures: torch.Tensor, factors: tuple[int, int]) -> torch.Tensor:
    """Return pictures (n, 3, height, width) whose colours are interpolated between samples, and not repeated.

    `factors` say how many rows and columns share a sample of colour. nvJPEG repeats it, libjpeg interpolates, and the
    difference moves probabilities by up to 0.04.
    """
    if factors == (1, 1):
        return pictures
    padded = operations.pad(pictures, (1, 1, 1, 1), mode="replicate")
    return operations.conv2d(padded, _chroma_kernel(factors, pictures.device))


@functools.cache
def _chroma_kernel(factors: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Make the convolution that leaves luma as it is, and averages repeated colours as libjpeg interpolates them."""
    down, across = (torch.tensor([0.25, 0.5, 0.25] if factor == 2 else [0.0, 1.0, 0.0]) for factor in factors)
    luma = torch.tensor([_LUMA]).expand(3, 3)
    kernel = (torch.eye(3) - luma)[:, :, None, None] * torch.outer(down, across)
    kernel[:, :, 1, 1] += luma
    return kernel.to(device)


def _crop(pictures: torch.Tensor, orientation: int, geometry: Geometry) -> torch.Tensor:
    """Resize stored pictures (n, 3, height, width), crop them, and turn the crops upright."""
    is_swapped, flipped = _TO_UPRIGHT[orientation]
    height, width = pictures.shape[2:]
    scaled = [geometry.resize * each // min(height, width) for each in (height, width)]
    # Like Pillow, first across and rounded, then down.
    across = _resized(pictures, (height, scaled[1]), geometry).round_().clamp_(0, 255)
    resized = _resized(across, (scaled[0], scaled[1]), geometry)
    side = geometry.crop
    # The rounding is that of the upright picture, as in `Geometry.box`.
    starts = []
    for axis, length in ((2, scaled[is_swapped]), (3, scaled[not is_swapped])):
        start = round((length - side) / 2)
        starts.append(length - start - side if axis in flipped else start)
    top, left = reversed(starts) if is_swapped else starts
    crop = resized[:, :, top : top + side, left : left + side]
    crop = crop.transpose(2, 3) if is_swapped else crop
    return crop.flip(flipped) if flipped else crop


def _resized(pictures: torch.Tensor, size: tuple[int, int], geometry: Geometry) -> torch.Tensor:
    return operations.interpolate(pictures, size, mode=geometry.interpolation, antialias=True, align_corners=False)


@dataclass(frozen=True)
class Agreement:
    """How the device's crops compare with the processor's: the share of photos with the same first class, and how far
    their first probability is apart at most.
    """

    photos: int
    equal: float
    difference: float

    @property
    def is_enough(self) -> bool:
        """Return whether answers from the device's crops are as good."""
        return self.equal >= MIN_EQUAL and self.difference <= MAX_DIFFERENCE


def compare(files: Sequence[Jpeg], geometry: Geometry, device: str, compute: Callable[[Pixels], Floats]) -> Agreement:
    """Compare answers; `compute` maps crops (n, side, side, 3) to logits. Raises RuntimeError if a file fails."""
    ours = decode_crops([Jpeg(without_metadata(each.data), each.orientation) for each in files], geometry, device)
    plain = [decode(each.data, max_pixels=_MAX_TEST_PIXELS, resize=geometry.resize) for each in files]
    theirs = np.stack([photo.crop(geometry) for photo in plain])
    found, expected = softmax(compute(ours.cpu().numpy())), softmax(compute(theirs))
    if device == "cuda":
        torch.cuda.empty_cache()  # no batch of photos needs as much again
    first = expected.argmax(axis=1)
    rows = np.arange(len(files))
    return Agreement(
        photos=len(files),
        equal=float((found.argmax(axis=1) == first).mean()),
        difference=float(np.abs(found[rows, first] - expected[rows, first]).max()),
    )


def sample_files(photo: bytes) -> list[Jpeg]:
    """Make JPEG files of all kinds that are decoded on the device, from one photo."""
    picture = Image.fromarray(np.asarray(decode(photo, max_pixels=_MAX_TEST_PIXELS).pixels.convert("RGB")))
    kinds = [
        {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        for quality in (60, 80, 95)
        for subsampling in (0, 1, 2)
        for progressive in (False, True)
    ]
    sizes = [picture, picture.resize((picture.width * 7 // 3, picture.height * 7 // 3), Image.Resampling.BICUBIC)]
    files = [_encode(each, **kind) for each in sizes for kind in kinds]
    files += [_encode(picture.convert("L"), **kind) for kind in kinds if kind["subsampling"] == 0]
    return files + [_encode(picture, orientation=orientation) for orientation in _TO_UPRIGHT]


def _encode(picture: Image.Image, *, orientation: int = 1, **options: object) -> Jpeg:
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    out = io.BytesIO()
    picture.save(out, "JPEG", exif=exif, **options)
    return Jpeg(out.getvalue(), orientation)
