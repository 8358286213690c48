"""Make small files that cost much to decode, and hostile ones that only `hostile_plugin.py` knows.

Each maker takes the number of bytes that its file may have; it uses them only if more bytes cost more.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from heif_boxes import heic_cycle, heic_grid, heic_nested, with_size
from PIL import Image

SIDE = 8000
# `hostile_plugin.py` looks for these behind the end of a GIF.
HOSTILE = {
    "spins": b"SPIN",
    "allocates": b"HOAR",
    "asks too much": b"MUCH",
    "crashes": b"SEGV",
    "waits": b"WAIT",
    "is slow": b"SLOW",
    "resists": b"DEAF",
    "leaks": b"LEAK",
    "poisons": b"POIS",
    "multiplies": b"MANY",
}

Maker = Callable[[int], bytes]


def bmp_end_of_lines(size: int) -> bytes:
    """Make a run-length coded BMP of a million columns, each row one pixel and an end; more ends cost a step each."""
    width, height, palette = 1_000_000, 64, bytes(1024)
    rows = b"\x01\x01\x00\x00" * height
    ends = bytes(max(0, size - 54 - len(palette) - len(rows)) // 2 * 2)
    start = 54 + len(palette)
    head = struct.pack("<2sIII", b"BM", start + len(ends) + len(rows), 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(ends) + len(rows), 0, 0, 256, 0)
    return head + palette + ends + rows


def webp_64_megapixels(size: int) -> bytes:
    """Make a lossless WebP of one colour; its pixels take no bits."""
    encoded = io.BytesIO()
    Image.new("RGB", (1, 1)).save(encoded, "WEBP", lossless=True)
    data = bytearray(encoded.getvalue())
    place = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[place : place + 4], "little") & ~(2**28 - 1)
    data[place : place + 4] = (bits | (SIDE - 1) << 14 | (SIDE - 1)).to_bytes(4, "little")
    return bytes(data)


def jpeg_refinements(size: int) -> bytes:
    """Make a progressive JPEG of 64 megapixels that refines its zeros in as many scans as fit."""
    blocks = (SIDE // 8) ** 2
    # Code 10 and fourteen bits say how many blocks more than 2^14 end here (ISO/IEC 10918-1, G.1.2.2).
    runs, left = divmod(blocks, 2**15 - 1)
    coded = b"\xbf\xff\x00" * runs + struct.pack(">H", 0x8000 | left - 2**14)
    scan = _segment(0xDA, b"\x01\x01\x00\x01\x3f\x10") + coded
    scans = max(200, (size - 200) // len(scan))
    return _jpeg_head([0x11]) + scan * scans + b"\xff\xd9"


def jpeg_cmyk(size: int) -> bytes:
    """Make a progressive CMYK JPEG of 64 megapixels: its coefficients take half a gigabyte."""
    adobe = _segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00")
    scans = (_segment(0xDA, bytes([1, number, 0, 1, 63, 0])) + bytes(8) for number in range(1, 5))
    head = _jpeg_head([0x11, 0x11, 0x11, 0x11])
    return head[:2] + adobe + head[2:] + b"".join(scans) + b"\xff\xd9"


def _jpeg_head(samplings: list[int]) -> bytes:
    parts = b"".join(bytes([number, sampling, 0]) for number, sampling in enumerate(samplings, 1))
    frame = struct.pack(">BHHB", 8, SIDE, SIDE, len(samplings)) + parts
    # Tables of one code for the first coefficient, and two for the others: end of block, and end of many blocks.
    dc, ac = b"\x00\x01" + bytes(16), b"\x10\x01\x01" + bytes(14) + b"\x00\xe0"
    tables = _segment(0xC4, dc) + _segment(0xC4, ac)
    return b"\xff\xd8" + _segment(0xDB, b"\x00" + b"\x01" * 64) + _segment(0xC2, frame) + tables


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def png_deep(size: int) -> bytes:
    """Make a PNG of 64 megapixels of four 16-bit samples: half a gigabyte of zeros."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", deflated_zeros(SIDE * (1 + SIDE * 8))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def tiff_repeated_tiles(size: int) -> bytes:
    """Make a TIFF one pixel wide whose tiles are of 64 megapixels each, and all the same bytes."""
    tile = deflated_zeros(4_000_000 * 16)
    tiles = min(62_500, max(100, (size - len(tile) - 200) // 8))
    tags = [(256, 4, 1, 1), (257, 4, 1, 16 * tiles), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    start = 8 + 2 + 12 * 10 + 4
    offsets = struct.pack("<I", start) * tiles
    counts = struct.pack("<I", len(tile)) * tiles
    tags += [(322, 4, 1, 4_000_000), (323, 4, 1, 16), (324, 4, tiles, start + len(tile))]
    tags += [(325, 4, tiles, start + len(tile) + len(offsets))]
    return _tiff_head(tags) + tile + offsets + counts


def tiff_byte_strips(size: int) -> bytes:
    """Make a TIFF of two pixels whose strips' offsets are millions of single bytes."""
    count = max(2_000_000, size - 200)
    start = 8 + 2 + 12 * 9 + 4
    tags = [(256, 4, 1, 1), (257, 4, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 1, count, start), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 2, start + count)]
    return _tiff_head(tags) + b"\x08" * count + bytes(8)


def tiff_huge_tile(size: int) -> bytes:
    """Make a TIFF of 16 pixels with a tile of a gigabyte, whose sides are of a type that Pillow does not know."""
    side = 32_000
    tile = deflated_zeros(side * side)
    start = 8 + 2 + 12 * 10 + 4
    behind = start + len(tile)
    tags = [(256, 4, 1, 1), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 17, 1, behind), (323, 17, 1, behind), (324, 4, 1, start), (325, 4, 1, len(tile))]
    return _tiff_head(tags) + tile + struct.pack("<q", side)


def _tiff_head(tags: list[tuple[int, int, int, int]]) -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def deflated_zeros(count: int) -> bytes:
    """Deflate zeros, in the time that a megabyte of them takes."""
    block = 2**20
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, wbits=-15)
    rest = packer.compress(bytes(count % block)) + packer.flush()
    # Adler-32 (RFC 1950): the sum of the bytes, and that of all sums, each from 1 and modulo 65521.
    return b"\x78\xda" + piece * (count // block) + rest + struct.pack(">HH", count % 65521, 1)


@functools.cache
def avif_64_megapixels(size: int) -> bytes:
    """Make an AVIF of 64 megapixels of one colour."""
    encoded = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(encoded, "AVIF", speed=10)
    return encoded.getvalue()


def avif_that_lies(size: int) -> bytes:
    """Make an AVIF whose header claims 64 by 64 pixels, and whose frame has 64 million."""
    return with_size(avif_64_megapixels(size), 64, 64)


MAKERS: dict[str, Maker] = {
    "BMP, end of lines": bmp_end_of_lines,
    "WebP, 64 MP": webp_64_megapixels,
    "JPEG, refinement scans": jpeg_refinements,
    "JPEG, progressive CMYK": jpeg_cmyk,
    "PNG, 16-bit RGBA": png_deep,
    "TIFF, repeated tiles": tiff_repeated_tiles,
    "TIFF, byte strips": tiff_byte_strips,
    "TIFF, SLONG8 tile": tiff_huge_tile,
    "AVIF, 64 MP": avif_64_megapixels,
    "AVIF, lies": avif_that_lies,
    "HEIC, grid of 64 MP": heic_grid,
    "HEIC, nested overlays": heic_nested,
    "HEIC, cycle": heic_cycle,
}


def bombs(size: int = 0) -> dict[str, bytes]:
    """Make one file of each kind; a file of fewer than `size` bytes is filled up with zeros."""
    return {name: maker(size).ljust(size, b"\0") for name, maker in MAKERS.items()}


def bombs_of(folder: Path, size: int = 0) -> dict[str, bytes]:
    """Read the files of a folder; each grows to `size` bytes, a JPEG by repeating its last scan."""
    return {path.name: _grow(path.read_bytes(), size) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix not in (".md", ".sh"))


def _grow(data: bytes, size: int) -> bytes:
    """Repeat a JPEG's last scan, then fill the file up with zeros."""
    last = data.rfind(b"\xff\xda")
    if data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9") and last > 0:
        scan = data[last:-2]
        data = data[:-2] + scan * max(0, (size - len(data)) // len(scan)) + b"\xff\xd9"
    return data.ljust(size, b"\0")


def hostile(kind: str) -> bytes:
    """Make a small GIF that passes every check; `hostile_plugin.py` then does to it what the kind says."""
    encoded = io.BytesIO()
    Image.new("RGB", (32, 32), "orange").save(encoded, "GIF")
    return encoded.getvalue() + HOSTILE[kind]
