"""The cost of a TIFF: every tile and strip is decoded whole, however small the picture is that is cut from them.

libtiff believes tags of types that Pillow does not read, so all integer types are read here.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from .costs import BASE_BYTES, BASE_SECONDS, Estimate
from .refusals import check_size, damaged, too_costly, too_many_pixels

# Real photos have less than a hundred.
_MAX_ENTRIES = 1000
# The parts whose lengths are read; of more, the first are taken for all.
_MAX_LENGTHS_READ = 20_000
# More pixels in all tiles than this many times a photo's largest are no photo's.
_MAX_TILED = 2

# Integer types of TIFF 6.0, its supplement and BigTIFF, signed ones as libtiff reads them: type -> struct's letter.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _ROWS = 256, 257, 258, 259, 277, 278
_STRIP_OFFSETS, _STRIP_LENGTHS, _ORIENTATION, _PLANAR = 273, 279, 274, 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_LENGTHS = 322, 323, 324, 325

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
# Each part of an uncompressed TIFF becomes an object of Python, which Pillow decodes by itself.
_PART_SECONDS, _PART_BYTES = 4e-6, 500
_TAG_BYTE_NS = 0.5


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    start: int  # of its values in the file


@dataclass(frozen=True)
class _Directory:
    data: bytes | memoryview
    order: str  # struct's
    tags: dict[int, _Tag]

    def numbers(self, tag: int, most: int = 1) -> tuple[int, ...]:
        """Read the first numbers of a tag; none where it is absent, or no integer."""
        found = self.tags.get(tag)
        if found is None or found.kind not in _INTEGERS:
            return ()
        room = (len(self.data) - found.start) // _TYPE_BYTES[found.kind]
        count = max(0, min(found.count, most, room))
        return struct.unpack_from(f"{self.order}{count}{_INTEGERS[found.kind]}", self.data, found.start)

    def number(self, tag: int, default: int) -> int:
        """Read one number, as libtiff would: no less than 0."""
        return max(0, next(iter(self.numbers(tag)), default))


@dataclass(frozen=True)
class _Parts:
    """The tiles or strips: how many pixels one has, how many cover the picture, and the tags that list them."""

    pixels: int
    count: int
    offsets: int
    lengths: int


def examine_tiff(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a TIFF's cost from its first directory: what all tiles or strips decode to, and what lists them."""
    directory, tag_bytes = _directory(data)
    width, height = directory.number(_WIDTH, 0), directory.number(_LENGTH, 0)
    if not width or not height:
        raise damaged("TIFF")
    check_size(width, height, max_pixels)
    samples = max(1, directory.number(_SAMPLES, 1))
    planes = samples if directory.number(_PLANAR, 1) == 2 else 1
    parts = _parts(directory, width, height, max_pixels)
    listed = max(
        (directory.tags[tag].count for tag in (parts.offsets, parts.lengths) if tag in directory.tags), default=0
    )
    expected = parts.count * planes
    if listed > 2 * expected + 16:
        raise too_costly("TIFF", f"it lists {listed:,} parts, and has {expected:,}")
    file_bytes = _listed_bytes(directory, parts.lengths, expected)
    if max(tag_bytes, file_bytes) > 2 * len(data) + 65_536:
        raise too_costly("TIFF", "its parts lie over each other")
    bits = max((1, *directory.numbers(_BITS, 8)))
    part_bytes = math.ceil(parts.pixels * (samples / planes) * bits / 8)
    decoded_ns, file_ns = _COMPRESSIONS.get(directory.number(_COMPRESSION, 1), _UNKNOWN_COMPRESSION)
    nanoseconds = expected * part_bytes * decoded_ns + min(file_bytes, len(data)) * file_ns
    nanoseconds += width * height * _CROP_PIXEL_NS + tag_bytes * _TAG_BYTE_NS
    memory = width * height * _pillow_bytes(samples, bits) * (1 if directory.number(_ORIENTATION, 1) <= 1 else 2)
    memory += part_bytes + listed * _PART_BYTES + tag_bytes
    seconds = BASE_SECONDS + nanoseconds * 1e-9 + listed * _PART_SECONDS
    return Estimate("TIFF", width, height, int(BASE_BYTES + memory), seconds)


def _pillow_bytes(samples: int, bits: int) -> float:
    """Return the bytes that Pillow keeps a pixel in, with the crop's share."""
    if bits > 16 and samples == 1:
        return 6.2
    if samples > 1:
        return 4.9
    return 3.8 if bits > 8 else 1.5


def _parts(directory: _Directory, width: int, height: int, max_pixels: int) -> _Parts:
    """Find how tiles or strips cover the picture, and refuse what covers more than a photo may have."""
    if _TILE_WIDTH in directory.tags or _TILE_OFFSETS in directory.tags:
        across, down = directory.number(_TILE_WIDTH, width), directory.number(_TILE_LENGTH, height)
        offsets, lengths = _TILE_OFFSETS, _TILE_LENGTHS
    else:
        across, down = width, min(height, directory.number(_ROWS, height))
        offsets, lengths = _STRIP_OFFSETS, _STRIP_LENGTHS
    if not across or not down:
        raise damaged("TIFF")
    if across * down > max_pixels:
        raise too_many_pixels(max_pixels)
    count = math.ceil(width / across) * math.ceil(height / down)
    if count * across * down > _MAX_TILED * max_pixels:
        raise too_costly("TIFF", f"its {count:,} tiles are {across:,}x{down:,} pixels each")
    return _Parts(across * down, count, offsets, lengths)


def _listed_bytes(directory: _Directory, lengths: int, expected: int) -> int:
    """Add up the lengths of the parts that are decoded; of very many, from the first ones."""
    read = directory.numbers(lengths, min(expected, _MAX_LENGTHS_READ))
    return sum(read) * max(1, expected // _MAX_LENGTHS_READ)


def _directory(data: bytes | memoryview) -> tuple[_Directory, int]:
    """Read the first directory's entries, and add up how many bytes all of its values take."""
    order = "<" if data[0] == 0x49 else ">"
    big = data[2 if order == "<" else 3] == 43
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    if count > _MAX_ENTRIES:
        raise too_costly("TIFF", f"its directory has {count:,} entries")
    entry = struct.Struct(f"{order}HH{'QQ' if big else 'II'}")
    tags, total, inline = {}, 0, 8 if big else 4
    for place in range(start + (8 if big else 2), start + (8 if big else 2) + count * entry.size, entry.size):
        if place + entry.size > len(data):
            break
        tag, kind, values, offset = entry.unpack_from(data, place)
        size = values * _TYPE_BYTES.get(kind, 0)
        begins = offset if size > inline else place + entry.size - inline
        tags[tag] = _Tag(kind, values, begins)
        if begins + size <= len(data):
            total += size
    return _Directory(data, order, tags), total
