"""Which picture of a TIFF is the photo, and what its samples mean if no tag says so."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
import tifffile
from fakes import encode
from pictures import MAX_PIXELS, cat

from app.errors import UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine

PHOTO = np.asarray(cat(60, 40))
SMALL = np.asarray(cat(15, 10))
REDUCED, PAGE, MASK = 1, 2, 4  # bits of NewSubfileType


def pages(*pictures: tuple[int, np.ndarray], **options: object) -> bytes:
    """Write a TIFF of several directories: their NewSubfileType and pixels."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, **options) as file:
        for kind, pixels in pictures:
            file.write(
                pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", subfiletype=kind, metadata=None
            )
    return out.getvalue()


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=["little", "big", "64 bits"])
@pytest.mark.parametrize("photo", [PHOTO, PHOTO.astype(np.uint16) * 257], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize(
    ("before", "kind"), [([REDUCED], 0), ([MASK], PAGE), ([REDUCED | MASK, REDUCED], 0), ([], PAGE)]
)
def test_the_first_full_page_is_the_photo(
    before: Sequence[int], kind: int, photo: np.ndarray, options: dict[str, object]
):
    data = pages(
        *((other, SMALL[..., 0] > 99 if other & MASK else SMALL) for other in before),
        (kind, photo),
        (kind, photo[::-1]),
        **options,
    )
    estimate = examine(data, max_pixels=MAX_PIXELS)
    assert (estimate.width, estimate.height) == (60, 40)
    assert np.abs(decode(data, max_pixels=MAX_PIXELS).thumbnail(60).astype(int) - PHOTO).max() <= 1


def test_the_old_tag_of_reduced_copies_counts_too():
    data = pages((REDUCED, SMALL), (0, PHOTO))
    old = data.replace(struct.pack("<HHII", 254, 4, 1, REDUCED), struct.pack("<HHII", 255, 3, 1, 2))
    assert old != data
    assert decode(old, max_pixels=MAX_PIXELS).width == 60


def test_a_picture_below_a_reduced_one_is_found():
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(SMALL, photometric="rgb", subifds=1, subfiletype=REDUCED, metadata=None)
        file.write(PHOTO, photometric="rgb", metadata=None)
    assert (decode(out.getvalue(), max_pixels=MAX_PIXELS).thumbnail(60) == PHOTO).all()


def test_a_reduced_copy_alone_is_answered():
    assert decode(pages((REDUCED, SMALL)), max_pixels=MAX_PIXELS).width == 15


def without_colours(data: bytes) -> bytes:
    """Turn the tag that says what samples mean into one that nobody needs."""
    place = data.index(struct.pack("<HH", 262, 3))
    return data[:place] + struct.pack("<H", 263) + data[place + 2 :]


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_samples_without_a_meaning_are_grey_or_red_green_blue(mode: str, dtype: type, compression: str | None):
    picture = cat(60, 40).convert(mode)
    numbers = np.asarray(picture).astype(dtype) * (257 if dtype == np.uint16 else 1)
    out = io.BytesIO()
    photometric = "minisblack" if mode == "L" else "rgb"
    tifffile.imwrite(out, numbers, photometric=photometric, compression=compression, metadata=None)
    found = decode(without_colours(out.getvalue()), max_pixels=MAX_PIXELS).thumbnail(60)
    assert np.abs(found.astype(int) - np.asarray(picture.convert("RGB"))).max() <= 1


@pytest.mark.parametrize(("mode", "options"), [("RGB", {"compression": "jpeg"}), ("CMYK", {})])
def test_samples_that_may_mean_anything_are_refused_by_name(mode: str, options: dict[str, str]):
    data = without_colours(encode(cat(60, 40).convert(mode), "TIFF", **options))
    for read in (decode, examine):
        with pytest.raises(UnsupportedImage, match="does not say what its samples mean"):
            read(data, max_pixels=MAX_PIXELS)
