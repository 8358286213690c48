"""The cost of a TIFF: every tile and strip is decoded whole, however small the picture is that is cut from them."""

from __future__ import annotations

import math

from .costs import BASE_BYTES, BASE_SECONDS, Estimate
from .refusals import too_costly
from .tiff_directory import Directory, read_page
from .tiff_layout import FLOATING, Layout, layout_of

# The parts whose lengths are read; of more, the first are taken for all.
_MAX_LENGTHS_READ = 20_000

# Of each compression, measured as costs.py says: nanoseconds a decoded byte and a byte of the file.
_COMPRESSIONS = {
    1: (2.5, 0.0),  # none
    5: (3.0, 4.0),  # LZW
    7: (3.0, 7.0),  # JPEG
    8: (2.5, 5.0),  # deflate
    32773: (2.5, 1.0),  # PackBits
    32946: (2.5, 5.0),  # deflate, its older number
    34925: (2.5, 40.0),  # LZMA
    50000: (2.5, 2.0),  # Zstandard
}
_UNKNOWN_COMPRESSION = (8.0, 8.0)
_CROP_PIXEL_NS = 4.0
# Each part of an uncompressed TIFF becomes a Python object, which Pillow decodes separately.
_PART_SECONDS, _PART_BYTES = 4e-6, 500
_TAG_BYTE_NS = 0.5
# Kinds that are converted here: nanoseconds for each number, for each of its bits if it is not whole bytes, and for
# the predictor of floating point; and the bytes of a block while it is converted.
_NUMBER_NS, _BIT_NS, _FLOATING_NS, _BLOCK_BYTES = 25.0, 6.0, 90.0, 8 << 20


def examine_tiff(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a TIFF's cost from its page's directory: what all tiles or strips decode to, and what lists them."""
    directory = read_page(data)
    layout = layout_of(directory, max_pixels)
    parts, tag_bytes = layout.parts, directory.value_bytes
    listed = max(
        (directory.tags[tag].count for tag in (parts.offsets, parts.lengths) if tag in directory.tags), default=0
    )
    expected = parts.count * layout.planes
    if listed > 2 * expected + 16:
        raise too_costly("TIFF", f"it lists {listed:,} parts, and has {expected:,}")
    file_bytes = _listed_bytes(directory, parts.lengths, expected)
    if max(tag_bytes, file_bytes) > 2 * len(data) + 65_536:
        raise too_costly("TIFF", "its parts lie over each other")
    part_bytes = layout.row_bytes * parts.height
    pixels = layout.width * layout.height
    decoded_ns, file_ns = _COMPRESSIONS.get(layout.compression, _UNKNOWN_COMPRESSION)
    nanoseconds = expected * part_bytes * decoded_ns + min(file_bytes, len(data)) * file_ns
    nanoseconds += pixels * _CROP_PIXEL_NS + tag_bytes * _TAG_BYTE_NS
    memory = part_bytes + listed * _PART_BYTES + tag_bytes
    if layout.is_for_pillow:
        memory += math.ceil(pixels * _pillow_bytes(layout) * (1 if layout.orientation <= 1 else 2))
        memory += 0 if directory.is_first else len(data)
    else:
        memory += _converted_bytes(layout) + len(data)
        nanoseconds += pixels * layout.used_samples * _number_ns(layout)
    seconds = BASE_SECONDS + nanoseconds * 1e-9 + listed * _PART_SECONDS
    return Estimate("TIFF", layout.width, layout.height, int(BASE_BYTES + memory), seconds)


def _pillow_bytes(layout: Layout) -> float:
    """Return the bytes that Pillow keeps a pixel in, with the crop's share."""
    if layout.samples > 1:
        return 4.9
    return 3.8 if layout.bits > 8 else 1.5


def _converted_bytes(layout: Layout) -> int:
    """Return the memory of a kind that is converted here: the bytes of all planes that are read, and the result."""
    planes = layout.used_samples if layout.planes > 1 else 1
    kept = planes * layout.parts.across * layout.row_bytes * layout.height
    return kept + layout.width * layout.height * (5 if layout.used_samples > 1 else 2) + _BLOCK_BYTES


def _number_ns(layout: Layout) -> float:
    packed_ns = 0.0 if layout.bits in (8, 16, 32, 64) else layout.bits * _BIT_NS
    return _NUMBER_NS + packed_ns + (_FLOATING_NS if layout.predictor == FLOATING else 0.0)


def _listed_bytes(directory: Directory, lengths: int, expected: int) -> int:
    """Add up the lengths of the parts that are decoded; of very many, from the first ones."""
    read = directory.numbers(lengths, min(expected, _MAX_LENGTHS_READ))
    return sum(read) * max(1, expected // _MAX_LENGTHS_READ)
