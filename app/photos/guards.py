"""The cost of a photo, estimated from its bytes in microseconds, before any library opens it.

Nothing is decoded here, and every loop has a limit, so that the longest file of any content is examined in
milliseconds. Decoders differ in which size they believe: where a header and the coded frame differ, the larger counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from .costs import Estimate
from .derivations import examine_items
from .formats import damaged, kind_of, unsupported
from .jpeg_header import examine_jpeg
from .raster_headers import examine_bmp, examine_gif, examine_png, examine_webp
from .tiff_header import examine_tiff

__all__ = ["Estimate", "examine"]

_EXAMINERS: dict[str, Callable[[bytes | memoryview, int], Estimate]] = {
    "JPEG": examine_jpeg,
    "PNG": examine_png,
    "WEBP": examine_webp,
    "GIF": examine_gif,
    "TIFF": examine_tiff,
    "BMP": examine_bmp,
    "AVIF": lambda data, max_pixels: examine_items(data, "AVIF", max_pixels),
    "HEIC": lambda data, max_pixels: examine_items(data, "HEIC", max_pixels),
}


def examine(data: bytes | memoryview, *, max_pixels: int) -> Estimate:
    """Return a photo's format and size, and what decoding and cropping it will take.

    Raises UnsupportedImage for bytes of no format we know, BrokenImage where a header is cut short or impossible,
    TooManyPixels where any picture, frame, tile or strip has more than `max_pixels`, and TooCostly for a shape that
    no photo has: scans, tiles, chunks or references between items by the thousand, or in a circle.
    """
    kind = kind_of(data)
    if kind is None:
        raise unsupported(data)
    try:
        return _EXAMINERS[kind](data, max_pixels)
    except (IndexError, OverflowError, struct.error) as error:  # a header that ends early, or points beyond any file
        raise damaged(kind) from error
