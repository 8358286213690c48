"""The cost of an AVIF or a HEIC: that of every picture which the photo is made of, as often as it is decoded.

An item is a coded picture, or is derived from others: a grid, an overlay, an identity. Decoders decode the parts of an
item again each time, so that overlays of overlays double with each level; an item that refers to itself never ends.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .bitstreams import FrameSize, av1_frame_size, hevc_frame_size
from .costs import COSTS, Cost, Estimate, estimate
from .isobmff import Item, Items, number_at, read_items
from .refusals import check_size, damaged, ends_in_filling, too_costly, too_many_pixels

_MAX_DEPTH = 16
# Together, for all pictures: units of a stream that are examined, and pictures that are decoded.
_MAX_UNITS = 3000
_MAX_PICTURES = 4000
# Of a photo's largest size: colours, transparency, and twice that for tiles which reach over the edge.
_MAX_TIMES_DECODED = 4
_MAX_FILLING = 16
_PICTURE_SECONDS = 20e-6  # for each, however small: its decoder is made again
_DERIVED = (b"grid", b"iovl", b"iden", b"tmap")
_AV1, _HEVC = b"av01", (b"hvc1", b"hev1")


@dataclass(frozen=True)
class _Work:
    """An item's own size, and the work of decoding it with all its parts: pictures, pixels and bytes of the file."""

    width: int
    height: int
    pictures: int = 1
    decoded: int = 0  # pixels
    composed: int = 0  # pixels that are put together from others
    alpha: int = 0  # pixels of transparency that are decoded
    full_chroma: bool = False
    deep: bool = False
    file_bytes: int = 0


class _Tree:
    """The derivation of one photo, in which each item is examined once."""

    def __init__(self, items: Items, max_pixels: int) -> None:
        self._items, self._max_pixels = items, max_pixels
        self._known: dict[int, _Work | None] = {}  # None while it is being examined
        self._units = 0

    def work(self, number: int, depth: int = 0) -> _Work:
        """Return the work of an item, including its parts and its transparency."""
        if depth > _MAX_DEPTH:
            raise too_costly(self._items.kind, f"its items refer to each other over more than {_MAX_DEPTH} levels")
        if number in self._known:
            known = self._known[number]
            if known is None:
                raise too_costly(self._items.kind, "its items refer to each other in a circle")
            return known
        self._known[number] = None
        item = self._items.item(number)
        parts = [self.work(part, depth + 1) for part in item.parts] if item.kind in _DERIVED else []
        alphas = [self.work(alpha, depth + 1) for alpha in item.alphas if self._is_alpha(alpha)]
        own = self._derived(item, parts) if item.kind in _DERIVED else self._coded(item)
        work = self._known[number] = self._sum(own, [*parts, *map(_as_alpha, alphas)])
        return work

    def track(self, start: int, end: int) -> _Work:
        """Return the work of the first sample of a track."""
        boxes = {box: (begins, ends) for box, begins, ends in self._items.walk(start, end)}
        data = self._items.data
        item = Item()
        if b"stsd" in boxes:
            begins, ends = boxes[b"stsd"]
            for box, entry, stop in self._items.walk(begins + 8, ends):
                item.kind = box
                item.properties = list(self._items.walk(entry + 78, stop))
                check_size(number_at(data, entry + 24, 2), number_at(data, entry + 26, 2), self._max_pixels)
        chunk, wide = (b"stco", 4) if b"stco" in boxes else (b"co64", 8)
        if chunk in boxes and b"stsz" in boxes:
            sizes = boxes[b"stsz"][0]
            size = number_at(data, sizes + 4, 4) or number_at(data, sizes + 12, 4)
            item.extents = [(number_at(data, boxes[chunk][0] + 8, wide), size)]
        return self._coded(item)

    def _is_alpha(self, number: int) -> bool:
        data = self._items.data
        for kind, start, end in self._items.item(number).properties:
            if kind == b"auxC":
                name = bytes(data[start + 4 : min(end, start + 100)])
                return b"alpha" in name or b"auxid:1" in name
        return False

    def _sum(self, own: _Work, parts: list[_Work]) -> _Work:
        check_size(own.width, own.height, self._max_pixels)
        works = [own, *parts]
        total = _Work(
            own.width,
            own.height,
            pictures=sum(work.pictures for work in works),
            decoded=sum(work.decoded for work in works),
            composed=sum(work.composed for work in works),
            alpha=sum(work.alpha for work in works),
            full_chroma=any(work.full_chroma for work in works),
            deep=any(work.deep for work in works),
            file_bytes=sum(work.file_bytes for work in works),
        )
        if total.pictures > _MAX_PICTURES:
            raise too_costly(self._items.kind, f"it is made of more than {_MAX_PICTURES:,} pictures")
        if max(total.decoded + total.alpha, total.composed) > _MAX_TIMES_DECODED * self._max_pixels:
            raise too_costly(self._items.kind, f"{total.decoded:,} pixels are decoded for {own.width}x{own.height}")
        return total

    def _derived(self, item: Item, parts: list[_Work]) -> _Work:
        """Return the work that an item adds to its parts'."""
        head = self._items.content(item, 64)
        width, height = _described_size(self._items, item)
        if item.kind == b"grid" and len(head) >= 8:
            wide = 4 if head[1] & 1 else 2
            width = max(width, number_at(head, 4, wide))
            height = max(height, number_at(head, 4 + wide, wide))
            if len(parts) < (head[3] + 1) * (head[2] + 1):  # libheif would take one of its tiles for the photo
                raise damaged(self._items.kind)
            self._check_tiles(head[3] + 1, head[2] + 1, (width, height), parts)
        elif item.kind == b"iovl":
            wide = 4 if len(head) > 1 and head[1] & 1 else 2
            width, height = max(width, number_at(head, 10, wide)), max(height, number_at(head, 10 + wide, wide))
        elif parts:
            width, height = max(width, parts[0].width), max(height, parts[0].height)
        return _Work(width, height, composed=width * height)

    def _check_tiles(self, across: int, down: int, size: tuple[int, int], parts: list[_Work]) -> None:
        """Refuse tiles that have more pixels than a photo may, apart from the pixels beyond its edges."""
        tiles = sum(part.width * part.height for part in parts)
        width, height = max((part.width for part in parts), default=0), max((part.height for part in parts), default=0)
        fit = (across - 1) * width < size[0] and (down - 1) * height < size[1] and len(parts) <= across * down
        if tiles > self._max_pixels and not fit:
            raise too_many_pixels(self._max_pixels)

    def _coded(self, item: Item) -> _Work:
        """Return the work of a coded picture, by the larger of its described size and the frames in its stream."""
        sizes = [FrameSize(*_described_size(self._items, item))]
        frames, file_bytes = 1, sum(size for _, size in item.extents)
        if any(start + size > len(self._items.data) for start, size in item.extents):
            raise damaged(self._items.kind)
        if file_bytes > len(self._items.data):
            raise too_costly(self._items.kind, "its parts lie over each other")
        # HEVC has no three zeros in a row (ITU-T H.265, section 7.4.2), AV1 ends in a one (AV1 specification, section
        # 8.2.4), and arithmetic coding makes no such run of ones. libde265 and dav1d paint over what is missing.
        if item.kind in (_AV1, *_HEVC) and any(
            ends_in_filling(self._items.data, start + size, _MAX_FILLING) for start, size in item.extents
        ):
            raise damaged(self._items.kind)
        if item.kind == _AV1:
            frames = self._read_av1(item, sizes)
        elif item.kind in _HEVC:
            frames = self._read_hevc(item, sizes)
        width, height = max(size.width for size in sizes), max(size.height for size in sizes)
        check_size(width, height, self._max_pixels)
        frames = max(1, frames)
        return _Work(
            width,
            height,
            pictures=frames,
            decoded=width * height * frames,
            full_chroma=any(size.full_chroma for size in sizes),
            deep=any(size.deep for size in sizes),
            file_bytes=file_bytes,
        )

    def _read_av1(self, item: Item, sizes: list[FrameSize]) -> int:
        """Add the sizes in all sequence headers, and return how many frames there are."""
        streams = [self._items.content(item)]
        for kind, start, end in item.properties:
            if kind == b"av1C":
                deep = bool(self._items.data[start + 2] & 0x40)
                sizes.append(FrameSize(0, 0, deep=deep))
                streams.append(bytes(self._items.data[start + 4 : end]))
        frames = 0
        for stream in streams:
            place = 0
            while place < len(stream):
                unit, start, end = _obu(stream, place)
                self._count_unit()
                if unit == 1:
                    sizes.append(av1_frame_size(stream[start : min(end, start + 1000)]))
                frames += unit in (3, 6)
                place = end
        return frames

    def _read_hevc(self, item: Item, sizes: list[FrameSize]) -> int:
        """Add the sizes in all parameter sets, and return how many pictures there are."""
        data, length_size = self._items.data, 4
        for kind, start, end in item.properties:
            if kind == b"hvcC":
                length_size = (data[start + 21] & 3) + 1
                self._read_parameter_sets(start + 22, end, sizes)
        stream, place, pictures = self._items.content(item), 0, 0
        while place + length_size + 2 < len(stream):
            start = place + length_size
            place = start + number_at(stream, place, length_size)
            unit = stream[start] >> 1 & 0x3F
            self._count_unit()
            if unit == 33:
                sizes.append(hevc_frame_size(stream[start : min(place, start + 1000)]))
            pictures += unit < 32 and stream[start + 2] >> 7
        return pictures

    def _read_parameter_sets(self, place: int, end: int, sizes: list[FrameSize]) -> None:
        data, arrays = self._items.data, self._items.data[place]
        place += 1
        for _ in range(arrays):
            count = number_at(data, place + 1, 2)
            place += 3
            for _ in range(count):
                if place >= end:
                    return
                size = number_at(data, place, 2)
                self._count_unit()
                if data[place + 2] >> 1 & 0x3F == 33:
                    sizes.append(hevc_frame_size(bytes(data[place + 2 : place + 2 + min(size, 1000)])))
                place += 2 + size

    def _count_unit(self) -> None:
        self._units += 1
        if self._units > _MAX_UNITS:
            raise too_costly(self._items.kind, f"its pictures have more than {_MAX_UNITS:,} parts")


def examine_avif(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate the cost of an AVIF."""
    return _examine_items(data, "AVIF", max_pixels)


def examine_heic(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate the cost of a HEIC."""
    return _examine_items(data, "HEIC", max_pixels)


def _examine_items(data: bytes | memoryview, kind: str, max_pixels: int) -> Estimate:
    """Estimate the cost of an AVIF or a HEIC by all that its main picture is made of, or by its tracks' frames."""
    items = read_items(data, kind)
    tree = _Tree(items, max_pixels)
    works = [] if items.primary is None else [tree.work(items.primary)]
    works += [tree.track(*table) for table in items.tracks]
    work = max(works, key=lambda work: work.decoded + work.alpha, default=None)
    if work is None or not work.width or not work.height:
        raise damaged(kind)
    codec = "AV1" if kind == "AVIF" else "HEVC"
    costs: list[tuple[Cost, int]] = [(COSTS[f"{codec} 4:4:4" if work.full_chroma else codec], work.decoded)]
    costs += [(COSTS[f"{codec} alpha"], work.alpha)] if work.alpha else []
    costs += [(COSTS[f"{codec} deep"], work.decoded)] if work.deep else []
    costs += [(COSTS["composed"], work.composed)] if work.composed else []
    found = estimate(kind, (work.width, work.height), costs, work.file_bytes)
    return dataclasses.replace(found, seconds=found.seconds + work.pictures * _PICTURE_SECONDS)


def _as_alpha(work: _Work) -> _Work:
    return dataclasses.replace(work, decoded=0, alpha=work.decoded + work.alpha)


def _described_size(items: Items, item: Item) -> tuple[int, int]:
    """Return the largest size that an item's properties name."""
    sizes = [
        (number_at(items.data, start + 4, 4), number_at(items.data, start + 8, 4))
        for kind, start, _ in item.properties
        if kind == b"ispe"
    ]
    return max((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0)


def _obu(stream: bytes, place: int) -> tuple[int, int, int]:
    """Return an OBU's type, where its content starts and where it ends (AV1 specification, section 5.3)."""
    header = stream[place]
    start = place + (2 if header & 4 else 1)
    if not header & 2:
        return header >> 3 & 15, start, len(stream)
    size = 0
    for shift in range(0, 56, 7):
        byte = stream[start]
        start += 1
        size |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return header >> 3 & 15, start, start + size
