"""PNG: its cost, and its pixels without the metadata, which may be broken.

Pillow reads all chunks, and rejects the whole photo for a text that is too long, a wrong checksum, or an invalid
animation. Of the metadata only the orientation is used, so the file is opened without the rest.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from ..errors import Problem
from .costs import COSTS, Cost, Estimate, estimate
from .refusals import check_size, damaged, ends_in_filling, too_costly, unsupported_kind
from .tiff_directory import ORIENTATION, read_directory

_SIGNATURE_BYTES = 8
_MAX_CHUNKS_BEFORE_PIXELS = 1000  # no encoder writes a hundred
_MAX_CHUNKS = 50_000  # 8 KB of pixels each, as libpng writes them, are 400 MB
_CHUNK_SECONDS = 1e-6
# Compressed pixels end in a checksum, which Pillow does not read; a file that was never downloaded ends in filling.
_MAX_FILLING = 64

_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_TRANSPARENCY, _EXIF, _APPLES_OWN = b"tRNS", b"eXIf", b"CgBI"
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types, section 11.2.1
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
# The passes of an interlaced picture: first column and row, and their steps (PNG, section 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_UNPACKED_AT_ONCE = 1 << 20
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Texts that may hold the orientation: XMP, and EXIF as hexadecimal digits. More bytes than these hold a thumbnail.
_XMP, _HEXADECIMAL_EXIF = b"XML:com.adobe.xmp", (b"Raw profile type exif", b"Raw profile type APP1")
_MAX_TEXT_BYTES = 1 << 20
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


def examine_png(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a PNG's cost from its IHDR, the largest if it has several, and the number of its chunks."""
    width = height = depth = colour = chunks = 0
    has_pixels = has_palette = False
    for kind, start, _ in _chunks(data):
        chunks += 1
        if kind == _APPLES_OWN:
            raise unsupported_kind("PNG", "Apple's own form of it, for programs of the iPhone")
        if kind == b"IHDR" and not has_pixels:
            width, height = max(width, _big(data, start)), max(height, _big(data, start + 4))
            depth, colour = max(depth, data[start + 8]), data[start + 9]
        if kind == b"IEND":
            break
        has_palette = has_palette or kind == b"PLTE"
        has_pixels = has_pixels or kind == b"IDAT"
        if chunks > (_MAX_CHUNKS if has_pixels else _MAX_CHUNKS_BEFORE_PIXELS):
            raise too_costly("PNG", f"it has more than {chunks - 1:,} chunks")
    if not width or not height or (colour == _PALETTE and not has_palette):
        raise damaged("PNG")
    check_size(width, height, max_pixels)
    samples = _SAMPLES.get(colour, 4)
    mode = "I;16" if (colour, depth) == (0, 16) else str(-(-samples * depth // 8))
    known = COSTS.get(f"PNG {mode}", COSTS["PNG 8"])
    if colour == 4:  # Pillow keeps grey with alpha in 4 bytes
        known = Cost(COSTS["PNG 4"].pixel_ns, COSTS["PNG 4"].pixel_bytes, known.file_byte_ns, known.file_bytes)
    found = estimate("PNG", (width, height), [(known, width * height)], len(data))
    return Estimate(
        "PNG", width, height, found.memory_bytes + _MAX_TEXT_BYTES, found.seconds + chunks * _CHUNK_SECONDS
    )


def open_png(data: bytes, max_pixels: int) -> Image.Image:
    """Open a PNG with only its pixels, transparency and orientation; other chunks are not read.

    Raises BrokenImage for a file that ends in filling instead of its pixels, or whose pixels end before its last row.
    """
    parts = [data[:_SIGNATURE_BYTES]]
    pixels: list[memoryview] = []
    orientation, pixels_end = 1, 0
    for kind, start, end in _chunks(data):
        if kind == b"IDAT":
            pixels_end = min(end, len(data))
            pixels.append(memoryview(data)[start:end])
        if kind in _PIXELS:
            parts.append(data[start - 8 : end + 4])
        elif kind == _TRANSPARENCY and _is_intact(data, start, end):
            parts.append(_transparency(parts[1], data[start:end]))
        elif orientation == 1:
            orientation = _orientation(kind, data[start:end])
        if kind == b"IEND":
            break
    if ends_in_filling(data, pixels_end, _MAX_FILLING):
        raise damaged("PNG")
    header = parts[1]
    parts.insert(2, _exif_chunk(orientation))
    image = Image.open(io.BytesIO(b"".join(parts)), formats=["PNG"])
    check_size(*image.size, max_pixels)
    image.load()
    if _may_lack_rows(image) and _lacks_rows(header, pixels):
        raise damaged("PNG")
    return image


def _may_lack_rows(image: Image.Image) -> bool:
    """Return whether one of the last two rows is empty: Pillow leaves a row so if the compressed pixels end before it.

    Of an interlaced picture the last row but one may be the last that is stored.
    """
    last = (image.crop((0, row, image.width, row + 1)) for row in range(max(0, image.height - 2), image.height))
    return any(not any(row.tobytes()) for row in last)


def _lacks_rows(header: bytes, pixels: list[memoryview]) -> bool:
    """Return whether the compressed pixels are fewer bytes than the header promises."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", header, 8)
    bits = depth * _SAMPLES.get(colour, 4)
    lacking = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        lacking += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    unpacking = zlib.decompressobj()
    for part in pixels:
        packed: bytes | memoryview = part
        while packed and lacking > 0:
            lacking -= len(unpacking.decompress(packed, _UNPACKED_AT_ONCE))
            packed = unpacking.unconsumed_tail
    return lacking > 0


def _chunks(data: bytes | memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk, and where its content starts and ends (PNG, section 5.3)."""
    start = _SIGNATURE_BYTES
    while start + 8 <= len(data):
        end = start + 8 + _big(data, start)
        yield bytes(data[start + 4 : start + 8]), start + 8, end
        start = end + 4


def _is_intact(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(data[start - 4 : end]) == _big(data, end)


def _transparency(header: bytes, content: bytes) -> bytes:
    """Write the chunk of transparency as Pillow needs it; none where its length is wrong (PNG, section 11.3.2.1).

    Pillow compares the one transparent colour of a picture with pixels that it has scaled to 8 bits already, except
    for grey of 16 bits.
    """
    depth, colour = header[16], header[17]
    if colour == _PALETTE:
        return _chunk(_TRANSPARENCY, content) if content else b""
    if len(content) != {_GREY: 2, _RGB: 6}.get(colour):
        return b""
    samples = struct.unpack(f">{len(content) // 2}H", content)
    if depth == 16 and colour == _RGB:
        samples = tuple(sample >> 8 for sample in samples)
    elif depth in (2, 4):
        samples = tuple(sample * 255 // ((1 << depth) - 1) for sample in samples)
    return _chunk(_TRANSPARENCY, struct.pack(f">{len(samples)}H", *(min(sample, 0xFFFF) for sample in samples)))


def _orientation(kind: bytes, content: bytes) -> int:
    """Return the orientation that a chunk of metadata holds, 1 if it holds none or is broken."""
    if kind == _EXIF:
        return _exif_orientation(content)
    if kind not in _TEXTS or len(content) > _MAX_TEXT_BYTES:
        return 1
    keyword, _, rest = content.partition(b"\0")
    if keyword not in (_XMP, *_HEXADECIMAL_EXIF):
        return 1
    text = _text(kind, rest)
    if keyword == _XMP:
        found = _XMP_ORIENTATION.search(text)
        return int(found[1]) if found else 1
    digits = b"".join(text.split(b"\n")[3:])  # behind an empty line, the profile's name and its length
    try:
        return _exif_orientation(bytes.fromhex(digits.decode("ascii")))
    except ValueError:
        return 1


def _text(kind: bytes, stored: bytes) -> bytes:
    """Return the text behind its keyword, unpacked up to a limit; empty if it cannot be unpacked."""
    is_packed = kind == b"zTXt" or (kind == b"iTXt" and stored[:1] == b"\x01")
    if kind == b"iTXt":
        stored = stored[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif kind == b"zTXt":
        stored = stored[1:]
    if not is_packed:
        return stored
    try:
        return zlib.decompressobj().decompress(stored, _MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _exif_orientation(exif: bytes) -> int:
    try:
        return read_directory(exif.removeprefix(b"Exif\0\0")).number(ORIENTATION, 1)
    except (IndexError, struct.error, Problem):
        return 1


def _exif_chunk(orientation: int) -> bytes:
    """Write the chunk of EXIF data that holds an orientation and nothing else; none for an upright photo."""
    if not 2 <= orientation <= 8:
        return b""
    return _chunk(_EXIF, b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, ORIENTATION, 3, 1, orientation, 0, 0))


def _chunk(kind: bytes, content: bytes) -> bytes:
    named = kind + content
    return struct.pack(">I", len(content)) + named + struct.pack(">I", zlib.crc32(named))


def _big(data: bytes | memoryview, start: int) -> int:
    return int.from_bytes(data[start : start + 4], "big")
