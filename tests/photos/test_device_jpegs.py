"""Which JPEG files a device may decode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.photos.device_jpegs import device_orientation, without_metadata
from app.photos.formats import format_of
from app.photos.guards import examine


def encoded(mode: str = "RGB", side: int = 64, kind: str = "JPEG", **options: object) -> bytes:
    """Encode a picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(), 1),
        (encoded(progressive=True, subsampling=0), 1),
        (encoded("L", subsampling=0), 1),
        (encoded("L", subsampling=2), 0),  # a grey component with another factor than 1
        (encoded("CMYK"), 0),
        (encoded(kind="PNG"), 0),
        (encoded(side=16), 0),
        (encoded()[:-2], 0),
        (encoded(keep_rgb=True), 0),
        (encoded(side=3000), 0),
    ],
)
def test_only_plain_files_of_usual_size_go_to_the_device(data: bytes, expected: int) -> None:
    assert device_orientation(data, format_of(data), examine(data, max_pixels=10**8)) == expected


def test_metadata_is_removed_and_nothing_else() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    data = encoded(exif=exif, comment=b"a comment")
    bare = without_metadata(data)
    assert device_orientation(data, format_of(data), examine(data, max_pixels=10**8)) == 6
    assert b"Maker" in data
    assert b"Maker" not in bare
    assert b"a comment" not in bare
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(data))))
