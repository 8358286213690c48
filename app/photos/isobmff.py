"""The boxes of AVIF and HEIC (ISO/IEC 14496-12 and 23008-12): items, where their bytes are, and how they refer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from .refusals import damaged, too_costly

# A photo of 64 megapixels in tiles of 512x512 has 256 items for them, as many for its gain map, and 1,500 properties.
_MAX_BOXES = 2500
_MAX_ITEMS = 2000
_MAX_EXTENTS = 3000
_MAX_REFERENCES = 6000
_MAX_PROPERTIES = 6000

# Of these a file has one each, at most.
_SINGLE_BOXES = (b"pitm", b"iloc", b"iinf", b"iprp", b"iref", b"idat")

# The content of `clap`: width, height, and how far the centre is moved, each a numerator and a denominator.
_APERTURE = struct.Struct(">IIIIiIiI")

Data = bytes | memoryview


@dataclass
class Item:
    """One item of the file: its type, its properties' and its bytes' places, and the items that it refers to."""

    kind: bytes = b""
    extents: list[tuple[int, int]] = field(default_factory=list)
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)  # the items that it is derived from
    alphas: list[int] = field(default_factory=list)  # the items that hold its transparency


@dataclass
class Items:
    """All items by their number, which one is the photo, and where tracks describe their samples."""

    data: Data
    kind: str
    primary: int | None = None
    items: dict[int, Item] = field(default_factory=dict)
    tracks: list[tuple[int, int]] = field(default_factory=list)
    has_meta: bool = False
    boxes: int = 0
    extents: int = 0

    def item(self, number: int) -> Item:
        """Return an item, which is made when it is first named."""
        if number not in self.items and len(self.items) >= _MAX_ITEMS:
            raise too_costly(self.kind, f"it has more than {_MAX_ITEMS:,} items")
        return self.items.setdefault(number, Item())

    def walk(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield the type of each box, where its content starts and where it ends."""
        end = min(end, len(self.data))
        while start + 8 <= end:
            self.boxes += 1
            if self.boxes > _MAX_BOXES:
                raise too_costly(self.kind, f"it has more than {_MAX_BOXES:,} boxes")
            size, header = number_at(self.data, start, 4), 8
            if size == 1:
                size, header = number_at(self.data, start + 8, 8), 16
            stop = end if size == 0 else start + size
            if stop < start + header:
                return
            yield bytes(self.data[start + 4 : start + 8]), start + header, min(stop, end)
            start = stop

    def content(self, item: Item, max_bytes: int | None = None) -> bytes:
        """Join an item's extents, or their first `max_bytes` bytes."""
        joined, left = [], len(self.data) if max_bytes is None else max_bytes
        for start, size in item.extents:
            joined.append(bytes(self.data[start : start + min(size, left)]))
            left -= len(joined[-1])
            if left <= 0:
                break
        return b"".join(joined)


def number_at(data: Data, start: int, size: int) -> int:
    """Read an unsigned number, from fewer bytes if the data ends before."""
    return int.from_bytes(data[start : start + size], "big")


def read_items(data: Data, kind: str) -> Items:
    """Read the file's items; raises BrokenImage for single boxes that occur twice, TooCostly for far too many."""
    found = Items(data, kind)
    for box, start, end in found.walk(0, len(data)):
        if box == b"meta":
            if found.has_meta:
                raise damaged(kind)
            found.has_meta = True
            _read_meta(found, start + 4, end)
        elif box == b"moov":
            found.tracks += _sample_tables(found, start, end)
    if not found.has_meta and not found.tracks:
        raise damaged(kind)
    return found


def cropped_box(data: Data, kind: str, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Find the clean aperture of the photo (left, top, right, bottom), in pixels that are not yet turned upright.

    `size` is the photo's width and height. Returns None if the file names no part of it, or an impossible one, which
    viewers ignore (ISO/IEC 14496-12, section 12.1.4).
    """
    items = read_items(data, kind)
    properties = [] if items.primary is None else items.item(items.primary).properties
    start = next((start for name, start, end in properties if name == b"clap" and end - start >= _APERTURE.size), None)
    if start is None:
        return None
    numbers = _APERTURE.unpack_from(data, start)
    if 0 in numbers[1::2]:
        return None
    wanted, moved = [numbers[at] / numbers[at + 1] for at in (0, 2)], [numbers[at] / numbers[at + 1] for at in (4, 6)]
    starts = [round((side - part) / 2 + by) for side, part, by in zip(size, wanted, moved, strict=True)]
    left, top = (max(0, begin) for begin in starts)
    right, bottom = (min(side, at + round(part)) for side, at, part in zip(size, starts, wanted, strict=True))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _read_meta(found: Items, start: int, end: int) -> None:
    boxes: dict[bytes, tuple[int, int]] = {}
    for box, begins, ends in found.walk(start, end):
        if box in boxes and box in _SINGLE_BOXES:
            raise damaged(found.kind)  # decoders differ in which they believe
        boxes[box] = begins, ends
    idat = boxes.get(b"idat", (len(found.data), 0))[0]
    if b"pitm" in boxes:
        begins = boxes[b"pitm"][0]
        found.primary = number_at(found.data, begins + 4, 4 if found.data[begins] else 2)
    if b"iloc" in boxes:
        _read_locations(found, boxes[b"iloc"][0], idat)
    if b"iinf" in boxes:
        begins, ends = boxes[b"iinf"]
        _read_kinds(found, begins + (8 if found.data[begins] else 6), ends)
    if b"iprp" in boxes:
        _read_properties(found, *boxes[b"iprp"])
    if b"iref" in boxes:
        _read_references(found, *boxes[b"iref"])


def _read_locations(found: Items, start: int, idat: int) -> None:
    data, version = found.data, found.data[start]
    sizes = number_at(data, start + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    count, place = number_at(data, start + 6, wide), start + 6 + wide
    for _ in range(count):
        if place >= len(data):
            return
        item = found.item(number_at(data, place, wide))
        method = number_at(data, place + wide, 2) & 15 if version else 0
        place += wide + (4 if version else 2)
        base = number_at(data, place, base_size) + (idat if method == 1 else 0)
        extents = number_at(data, place + base_size, 2)
        place += base_size + 2
        found.extents += extents
        if found.extents > _MAX_EXTENTS:
            raise too_costly(found.kind, f"its items have more than {_MAX_EXTENTS:,} parts")
        for _ in range(extents):
            offset = base + number_at(data, place + index_size, offset_size)
            length = number_at(data, place + index_size + offset_size, length_size)
            place += index_size + offset_size + length_size
            item.extents.append((offset, length or max(0, len(data) - offset)))


def _read_kinds(found: Items, start: int, end: int) -> None:
    for box, begins, _ in found.walk(start, end):
        if box == b"infe":
            wide = 4 if found.data[begins] == 3 else 2
            number = number_at(found.data, begins + 4, wide)
            found.item(number).kind = bytes(found.data[begins + 6 + wide : begins + 10 + wide])


def _read_properties(found: Items, start: int, end: int) -> None:
    properties: list[tuple[bytes, int, int]] = []
    links: list[int] = []
    for box, begins, ends in found.walk(start, end):
        if box == b"ipco":
            properties += found.walk(begins, ends)
        elif box == b"ipma":
            links.append(begins)
    total = 0
    for begins in links:
        total = _read_links(found, begins, properties, total)


def _read_links(found: Items, start: int, properties: list[tuple[bytes, int, int]], total: int) -> int:
    """Read which item has which properties, and return how many links there were until now."""
    data = found.data
    wide, index = (4 if data[start] else 2), (2 if data[start + 3] & 1 else 1)
    place = start + 8
    for _ in range(number_at(data, start + 4, 4)):
        if place >= len(data):
            break
        item = found.item(number_at(data, place, wide))
        count = data[place + wide]
        place += wide + 1
        total += 1 + count
        if total > _MAX_PROPERTIES:
            raise too_costly(found.kind, f"its items have more than {_MAX_PROPERTIES:,} properties")
        for _ in range(count):
            which = number_at(data, place, index) & (0x7FFF if index == 2 else 0x7F)
            place += index
            if 0 < which <= len(properties):
                item.properties.append(properties[which - 1])
    return total


def _read_references(found: Items, start: int, end: int) -> None:
    data, total = found.data, 0
    wide = 4 if data[start] else 2
    for box, begins, ends in found.walk(start + 4, end):
        source, count = number_at(data, begins, wide), number_at(data, begins + wide, 2)
        total += count
        if total > _MAX_REFERENCES:
            raise too_costly(found.kind, f"its items have more than {_MAX_REFERENCES:,} references")
        if box not in (b"dimg", b"auxl"):
            continue
        first = begins + wide + 2
        targets = [number_at(data, place, wide) for place in range(first, min(ends, first + wide * count), wide)]
        if box == b"dimg":
            found.item(source).parts += targets
        else:
            for target in targets:
                found.item(target).alphas.append(source)


def _sample_tables(found: Items, start: int, end: int) -> list[tuple[int, int]]:
    """Find the sample table of each track."""
    places = [(start, end)]
    for wanted in (b"trak", b"mdia", b"minf", b"stbl"):
        places = [(begins, ends) for place in places for box, begins, ends in found.walk(*place) if box == wanted]
    return places
