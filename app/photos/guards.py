"""The cost of a photo, estimated from its bytes in microseconds, before any library opens it.

Nothing is decoded here, and every loop has a limit, so that the longest file of any content is examined in
milliseconds. Decoders differ in which size they use: if a header and the coded frame differ, the larger counts.
"""

from __future__ import annotations

import struct

from .costs import Cost, Estimate, estimate
from .formats import Format, format_of
from .jpeg_header import DEFAULT_RESIZE, examine_jpeg
from .refusals import check_size, damaged

__all__ = ["Estimate", "examine"]

# For a format without a cost in its row: 4 bytes a pixel in Pillow, the decoder's own copy and a second one.
_UNKNOWN_COST = Cost(50.0, 16.0, 50.0, 2.0)
# Plugins of Pillow raise these for a broken header.
_HEADER_ERRORS = (ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError)


def examine(
    data: bytes | memoryview,
    *,
    max_pixels: int,
    photo_format: Format | None = None,
    resize: int = DEFAULT_RESIZE,
) -> Estimate:
    """Return a photo's format and size, and the expected cost of decoding and cropping it.

    `photo_format` is what `format_of` returned, if the caller knows it. `resize` is the shorter side, in pixels, to
    which the model resizes photos; it decides how small a JPEG is decoded.
    Raises UnsupportedImage for other formats and for kinds of a format that are not supported, BrokenImage if a header
    is incomplete or impossible, TooManyPixels if any picture, frame, tile or strip has more than `max_pixels`, and
    TooCostly for a structure that no photo has: thousands of scans, tiles, chunks or references between items, or
    references in a circle.
    """
    photo_format = photo_format or format_of(data)
    try:
        if photo_format.examine is None:
            return _examine_by_pillow(data, photo_format, max_pixels)
        if photo_format.key == "JPEG":
            return examine_jpeg(data, max_pixels, resize)
        return photo_format.examine(data, max_pixels)
    except (IndexError, OverflowError, struct.error) as error:  # a header that ends early, or points beyond any file
        raise damaged(photo_format.name) from error


def _examine_by_pillow(data: bytes | memoryview, photo_format: Format, max_pixels: int) -> Estimate:
    """Estimate the cost of a format without a reader of its header, by the size that Pillow reads."""
    try:
        with photo_format.open_image(bytes(data), max_pixels) as image:
            size = image.size
    except _HEADER_ERRORS as error:
        raise damaged(photo_format.name) from error
    check_size(*size, max_pixels)
    return estimate(photo_format.key, size, [(photo_format.cost or _UNKNOWN_COST, size[0] * size[1])], len(data))
