"""The directories of a TIFF: its tags, and the numbers that they hold.

libtiff accepts integer types that Pillow does not read, so all integer types are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .refusals import too_costly

# Real photos have less than a hundred.
_MAX_ENTRIES = 1000
# Directories that are read: each one's next, and those below each. A camera's raw file has about five.
_MAX_DIRECTORIES = 16

# Integer types of TIFF 6.0, its supplement and BigTIFF, signed ones as libtiff reads them: type -> struct's letter.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = (
    254,
    255,
    256,
    257,
    258,
    259,
    262,
    266,
)
MAKE, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_LENGTHS, PLANAR = 271, 273, 274, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_LENGTHS, SUB_DIRECTORIES = 317, 322, 323, 324, 325, 330
COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING, DNG_VERSION = 320, 338, 339, 530, 50706

REDUCED, MASK = 1, 4  # bits of NEW_SUBFILE_TYPE
_OLD_REDUCED = 2  # the value of SUBFILE_TYPE


@dataclass(frozen=True)
class Tag:
    """One entry: its type, how many values it has, and where in the file they are."""

    kind: int
    count: int
    start: int


@dataclass(frozen=True)
class Directory:
    """One directory: where it is, its tags, the bytes of all of its values, and where the next one is, 0 for none."""

    data: bytes | memoryview
    start: int
    order: str  # struct's
    tags: dict[int, Tag]
    value_bytes: int
    following: int

    def numbers(self, tag: int, max_count: int = 1) -> tuple[int, ...]:
        """Return the first `max_count` numbers of a tag; empty if the tag is absent or does not hold integers."""
        found = self.tags.get(tag)
        if found is None or found.kind not in _INTEGERS:
            return ()
        room = (len(self.data) - found.start) // _TYPE_BYTES[found.kind]
        count = max(0, min(found.count, max_count, room))
        return struct.unpack_from(f"{self.order}{count}{_INTEGERS[found.kind]}", self.data, found.start)

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag, as libtiff reads it: never below 0."""
        return max(0, next(iter(self.numbers(tag)), default))

    @property
    def is_first(self) -> bool:
        """Return whether the file's header names this directory."""
        return self.start == _first_place(self.data)

    @property
    def is_page(self) -> bool:
        """Return whether this describes a picture that is neither a smaller copy nor a mask of another one."""
        is_beside = self.number(NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK) or self.number(SUBFILE_TYPE, 0) == _OLD_REDUCED
        return WIDTH in self.tags and not is_beside


def is_big(data: bytes | memoryview) -> bool:
    """Return whether a file is a BigTIFF, whose numbers have 64 bits."""
    return data[2 if data[0] == 0x49 else 3] == 43


def _first_place(data: bytes | memoryview) -> int:
    order, big = "<" if data[0] == 0x49 else ">", is_big(data)
    place: int = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
    return place


def read_directory(data: bytes | memoryview, start: int | None = None) -> Directory:
    """Read the directory at a place in the file, the first one if none is given."""
    order, big = "<" if data[0] == 0x49 else ">", is_big(data)
    start = _first_place(data) if start is None else start
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    if count > _MAX_ENTRIES:
        raise too_costly("TIFF", f"its directory has {count:,} entries")
    entry = struct.Struct(f"{order}HH{'QQ' if big else 'II'}")
    tags, total, inline = {}, 0, 8 if big else 4
    first = start + (8 if big else 2)
    end = first + count * entry.size
    for place in range(first, end, entry.size):
        if place + entry.size > len(data):
            break
        tag, kind, values, offset = entry.unpack_from(data, place)
        size = values * _TYPE_BYTES.get(kind, 0)
        begins = offset if size > inline else place + entry.size - inline
        tags[tag] = Tag(kind, values, begins)
        if begins + size <= len(data):
            total += size
    following = 0
    if end + inline <= len(data):
        (following,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, end)
    return Directory(data, start, order, tags, total, following)


def read_page(data: bytes | memoryview) -> Directory:
    """Read the directory of the photo: the first page, or the first directory if no page is found."""
    first = read_directory(data)
    return first if first.is_page else next(filter(lambda found: found.is_page, read_directories(first)), first)


def with_first_directory(data: bytes, directory: Directory) -> bytes:
    """Return the file with a directory as its first one, as its header names it."""
    if directory.is_first:
        return data
    letter, place = ("Q", 8) if is_big(data) else ("I", 4)
    named = struct.pack(f"{directory.order}{letter}", directory.start)
    return b"".join([data[:place], named, memoryview(data)[place + len(named) :]])


def read_directories(first: Directory) -> list[Directory]:
    """Return the first directory, those after it and those below each, up to a limit; skip unreadable ones."""
    found, places, seen = [first], [first.following, *first.numbers(SUB_DIRECTORIES, _MAX_DIRECTORIES)], {0}
    while places and len(found) < _MAX_DIRECTORIES:
        place = places.pop(0)
        if place in seen or not 0 < place < len(first.data):
            continue
        seen.add(place)
        try:
            directory = read_directory(first.data, place)
        except struct.error:
            continue
        found.append(directory)
        places += [directory.following, *directory.numbers(SUB_DIRECTORIES, _MAX_DIRECTORIES)]
    return found
