"""HEIC files whose items are derived from each other in costly ways (ISO/IEC 23008-12).

The one coded picture is taken from the drawn photo of the tests, since there is no HEVC encoder.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DRAWN = Path(__file__).resolve().parent.parent / "tests" / "data" / "drawn.heic"
WIDTH, HEIGHT = 320, 240
ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
# Boxes that hold boxes, and how many bytes lie before these.
CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}


@dataclass(frozen=True)
class Item:
    """A picture: its type and data, and its references: each a type and the numbers of other items."""

    kind: bytes
    data: bytes
    references: tuple[tuple[bytes, tuple[int, ...]], ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    is_alpha: bool = False


def heic_grid(size: int) -> bytes:
    """Make a HEIC of 63 megapixels: a grid of one picture, 25 times across and 33 times down."""
    columns, rows = 25, 33
    width, height = columns * WIDTH, rows * HEIGHT
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    tiles = rows * columns  # separate pictures with the same bytes: a picture may not be used twice
    made_of = ((b"dimg", tuple(range(1, tiles + 1))),)
    return _heic([_picture()] * tiles + [Item(b"grid", grid, made_of, width, height)], primary=tiles + 1)


def heic_nested(size: int, levels: int = 24) -> bytes:
    """Make a HEIC of overlays, each of two of the level below, so that each level doubles the work."""
    overlay = struct.pack(">BB4HHH4h", 0, 0, 0, 0, 0, 0xFFFF, WIDTH, HEIGHT, 0, 0, 0, 0)
    items = [_picture(), _picture()]
    for level in range(levels):
        below = (2 * level + 1, 2 * level + 2)
        items += [Item(b"iovl", overlay, ((b"dimg", below),))] * 2
    return _heic(items, primary=len(items))


def heic_cycle(size: int) -> bytes:
    """Make a HEIC whose alpha plane is derived from its own picture: decoders wait without end."""
    alpha = Item(b"iden", b"", ((b"auxl", (1,)), (b"dimg", (1,))), is_alpha=True)
    return _heic([_picture(), alpha], primary=1)


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Change the declared size of a HEIC or AVIF of one picture."""
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", width, height) + data[place + 8 :]


def _picture() -> Item:
    return Item(b"hvc1", next(body for name, body in _boxes(DRAWN.read_bytes()) if name == b"mdat"))


def _heic(items: list[Item], primary: int) -> bytes:
    """Put a file together; items are numbered from 1."""
    kind = _box(b"ftyp", b"heic\0\0\0\0mif1heic")
    pieces = dict.fromkeys(item.data for item in items)
    # Offsets lie before what they count from, so that the second pass knows them.
    meta = _meta(items, primary, dict.fromkeys(pieces, 0))
    start, places = len(kind) + len(meta) + 8, {}
    for piece in pieces:
        places[piece] = start
        start += len(piece)
    return kind + _meta(items, primary, places) + _box(b"mdat", b"".join(pieces))


def _meta(items: list[Item], primary: int, offsets: dict[bytes, int]) -> bytes:
    handler = _full(b"hdlr", bytes(4) + b"pict" + bytes(13))
    names = b"".join(
        _full(b"infe", struct.pack(">HH4sx", number, 0, item.kind), version=2) for number, item in enumerate(items, 1)
    )
    places = struct.pack(">BBH", 0x44, 0, len(items))
    for number, item in enumerate(items, 1):
        places += struct.pack(">HHHII", number, 0, 1, offsets[item.data], len(item.data))
    references = b"".join(
        _box(name, struct.pack(f">HH{len(others)}H", number, len(others), *others))
        for number, item in enumerate(items, 1)
        for name, others in item.references
    )
    boxes = handler + _full(b"pitm", struct.pack(">H", primary)) + _full(b"iloc", places)
    boxes += _full(b"iinf", struct.pack(">H", len(items)) + names)
    return _full(b"meta", boxes + (_full(b"iref", references) if references else b"") + _properties(items))


def _properties(items: list[Item]) -> bytes:
    """Give each picture its decoder's configuration, if it has one, its size and its depth."""
    drawn = dict(_boxes(DRAWN.read_bytes()))
    sizes = list(dict.fromkeys((item.width, item.height) for item in items))
    boxes = [_box(name, drawn[name]) for name in (b"hvcC", b"pixi")] + [_full(b"auxC", ALPHA)]
    boxes += [_full(b"ispe", struct.pack(">II", *size)) for size in sizes]
    entries = b""
    for number, item in enumerate(items, 1):
        has = [2, 4 + sizes.index((item.width, item.height))] + [1] * (item.kind == b"hvc1") + [3] * item.is_alpha
        entries += struct.pack(">HB", number, len(has)) + bytes(has)
    own = _full(b"ipma", struct.pack(">I", len(items)) + entries)
    return _box(b"iprp", _box(b"ipco", b"".join(boxes)) + own)


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def _full(name: bytes, body: bytes, version: int = 0) -> bytes:
    return _box(name, bytes([version, 0, 0, 0]) + body)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the body of each box, and of those within."""
    start = 0
    while start + 8 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        name, body = data[start + 4 : start + 8], data[start + 8 : start + size]
        yield name, body
        if name in CONTAINERS:
            yield from _boxes(body[CONTAINERS[name] :])
        start += size
