"""BMP: its header, its cost, and its pixels.

Pillow reads fewer kinds of BMP, and some wrongly: it loses empty rows of run-length coding, shows a picture as white
if the alpha of all pixels is 0, and ignores the number of bits if a palette is black and white. So only Pillow's raw
decoders are used, for rows of pixels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from .costs import COSTS, Estimate, estimate
from .refusals import check_size, damaged, unsupported_kind

_CORE_HEADER_BYTES, _INFO_HEADER_BYTES, _ALPHA_HEADER_BYTES, _OS2_HEADER_BYTES = 12, 40, 56, 64
_NONE, _RLE8, _RLE4, _MASKS, _JPEG, _PNG, _MASKS_WITH_ALPHA, _FAX, _RLE24 = range(9)
_OS2_COMPRESSIONS = {3: _FAX, 4: _RLE24}  # OS/2 gives these numbers another meaning
_BITS = {
    _NONE: (1, 2, 4, 8, 16, 24, 32),
    _RLE8: (8,),
    _RLE4: (4,),
    _RLE24: (24,),
    _MASKS: (16, 32),
    _MASKS_WITH_ALPHA: (16, 32),
}
_UNSUPPORTED = {_JPEG: "JPEG compression", _PNG: "PNG compression", _FAX: "fax compression"}
_DEFAULT_MASKS = {16: (0x7C00, 0x3E0, 0x1F), 32: (0xFF0000, 0xFF00, 0xFF)}
# The names of rows of pixels in Pillow's raw decoders, by bits and masks.
_RAW_MODES: dict[tuple[int, tuple[int, ...]], str] = {
    (1, ()): "P;1",
    (2, ()): "P;2",
    (4, ()): "P;4",
    (8, ()): "P",
    (16, (0x7C00, 0x3E0, 0x1F)): "BGR;15",
    (16, (0xF800, 0x7E0, 0x1F)): "BGR;16",
    (24, ()): "BGR",
    (32, (0xFF0000, 0xFF00, 0xFF)): "BGRX",
}
# Pixels that are converted at once.
_BLOCK_PIXELS = 1 << 17

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Header:
    """The facts in the header; `alpha` is the mask of transparency, 0 for none."""

    width: int
    height: int
    is_top_down: bool
    bits: int
    compression: int
    masks: tuple[int, ...]
    alpha: int
    palette: bytes  # red, green and blue of each colour
    start: int  # of the pixels in the file

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def raw_mode(self) -> str:
        return _RAW_MODES.get((self.bits, self.masks), "")

    @property
    def is_in_runs(self) -> bool:
        return self.compression in (_RLE8, _RLE4, _RLE24)


def examine_bmp(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a BMP's cost from its header; a run-length coded one as if its bytes were the shortest runs."""
    header = _read_header(data, max_pixels)
    if header.is_in_runs:
        kind = "BMP RLE"
    elif header.alpha or not header.raw_mode:
        kind = "BMP masks"
    else:
        kind = "BMP 1" if header.bits <= 8 else "BMP 3"
    pixels = header.width * header.height
    return estimate("BMP", (header.width, header.height), [(COSTS[kind], pixels)], len(data))


def open_bmp(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a BMP: as L, P or RGB, or as RGBA if it has transparency and not all pixels are fully transparent.

    Raises BrokenImage, TooManyPixels, and UnsupportedImage for kinds that are not supported.
    """
    header = _read_header(data, max_pixels)
    if header.is_in_runs:
        return _image(header, _unpack_runs(data, header), "BGR" if header.compression == _RLE24 else "P", 0)
    needed = header.row_bytes * (header.height - 1) + (header.width * header.bits + 7) // 8
    rows = memoryview(data)[header.start : header.start + header.row_bytes * header.height]
    if len(rows) < needed:
        raise damaged("BMP")
    if len(rows) < header.row_bytes * header.height:  # the last row is not filled up
        rows = memoryview(bytes(rows) + bytes(header.row_bytes * header.height - len(rows)))
    if header.raw_mode and not (header.alpha and _has_any(rows, header.alpha, header.bits)):
        return _image(header, rows, header.raw_mode, header.row_bytes)
    return _masked_image(header, rows)


def _read_header(data: bytes | memoryview, max_pixels: int) -> _Header:
    size = int.from_bytes(data[14:18], "little")
    colours, compression, entry = 0, _NONE, 4
    if size == _CORE_HEADER_BYTES:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        entry = 3
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    if size >= _INFO_HEADER_BYTES:
        (compression,), (colours,) = struct.unpack_from("<I", data, 30), struct.unpack_from("<I", data, 46)
    if width <= 0 or not height:
        raise damaged("BMP")
    check_size(width, abs(height), max_pixels)
    if size == _OS2_HEADER_BYTES:
        compression = _OS2_COMPRESSIONS.get(compression, compression)
    if compression in _UNSUPPORTED or compression not in _BITS:
        raise unsupported_kind("BMP", _UNSUPPORTED.get(compression, f"compression of number {compression}"))
    if bits not in _BITS[compression]:
        raise unsupported_kind("BMP", f"{bits} bits a pixel")
    masks, alpha, palette_start = _masks(data, size, bits, compression)
    count = min(colours or 1 << bits, 1 << bits) if bits <= 8 else 0
    (start,) = struct.unpack_from("<I", data, 10)
    if start <= 14 + size:  # some programs leave out where the pixels are
        start = palette_start + count * entry
    stored = bytes(data[palette_start : min(start, palette_start + count * entry)])
    palette = b"".join(stored[place : place + 3][::-1] for place in range(0, len(stored) - 2, entry))
    return _Header(width, abs(height), height < 0, bits, compression, masks, alpha, palette, start)


def _masks(data: bytes | memoryview, size: int, bits: int, compression: int) -> tuple[tuple[int, ...], int, int]:
    """Return the masks of red, green and blue, that of transparency, and where a palette may begin."""
    if compression not in (_MASKS, _MASKS_WITH_ALPHA):
        return _DEFAULT_MASKS.get(bits, ()), 0, 14 + size
    stored = 3 + (compression == _MASKS_WITH_ALPHA) if size == _INFO_HEADER_BYTES else 4
    masks = struct.unpack_from(f"<{stored}I", data, 14 + _INFO_HEADER_BYTES)
    has_alpha = compression == _MASKS_WITH_ALPHA or size >= _ALPHA_HEADER_BYTES
    alpha = masks[3] if has_alpha and stored == 4 else 0
    after = 14 + size + (4 * stored if size == _INFO_HEADER_BYTES else 0)
    return (masks[:3] if any(masks[:3]) else _DEFAULT_MASKS[bits]), alpha, after


def _image(header: _Header, rows: bytes | bytearray | memoryview, raw_mode: str, row_bytes: int) -> Image.Image:
    """Make a picture of rows that Pillow's raw decoders know."""
    mode = "P" if raw_mode.startswith("P") else "RGB"
    direction = 1 if header.is_top_down else -1
    image = Image.frombytes(mode, (header.width, header.height), rows, "raw", raw_mode, row_bytes, direction)
    if mode == "P":
        if header.bits == 8 and header.palette == bytes(level for level in range(256) for _ in range(3)):
            return Image.frombytes("L", image.size, rows, "raw", "L", row_bytes, direction)
        image.putpalette(header.palette.ljust(768, b"\0"))
    return image


def _masked_image(header: _Header, rows: memoryview) -> Image.Image:
    """Make a picture of pixels whose colours are in other bits than usual, or that may be transparent."""
    has_alpha = bool(header.alpha) and _has_any(rows, header.alpha, header.bits)
    mode = "RGBA" if has_alpha else "RGB"
    masks = (*header.masks, header.alpha) if has_alpha else header.masks
    image = Image.new(mode, (header.width, header.height))
    pixels = _pixels(rows, header.bits).reshape(header.height, -1)[:, : header.width]
    pixels = pixels if header.is_top_down else pixels[::-1]
    step = max(1, _BLOCK_PIXELS // header.width)
    for top in range(0, header.height, step):
        block = pixels[top : top + step]
        colours = np.stack([_extract(block, mask) for mask in masks], axis=-1)
        image.paste(Image.fromarray(colours), (0, top))
    return image


def _pixels(rows: memoryview, bits: int) -> npt.NDArray[np.unsignedinteger]:
    return np.frombuffer(rows, f"<u{bits // 8}")


def _has_any(rows: memoryview, mask: int, bits: int) -> bool:
    """Return whether any pixel has a bit of a mask."""
    pixels = _pixels(rows, bits)
    blocks = range(0, len(pixels), _BLOCK_PIXELS)
    return any(np.bitwise_and(pixels[start : start + _BLOCK_PIXELS], mask).any() for start in blocks)


def _extract(pixels: npt.NDArray[np.unsignedinteger], mask: int) -> Bytes:
    """Return the bits of a mask, scaled to 8 bits."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    largest = mask >> shift
    return ((pixels & mask).astype(np.uint64) // (1 << shift) * 255 // largest).astype(np.uint8)


def _unpack_runs(data: bytes, header: _Header) -> bytearray:
    """Decode runs to one byte a pixel, or three; a pixel that no run reaches has the first colour."""
    unit = 3 if header.compression == _RLE24 else 1
    row_bytes = header.width * unit
    pixels = bytearray(row_bytes * header.height)
    x = y = 0
    place = header.start
    while y < header.height:
        if place + 2 > len(data):
            if y == header.height - 1 and x >= row_bytes:  # only the end mark is missing
                break
            raise damaged("BMP")
        count, value = data[place], data[place + 1]
        place += 2
        if count == 0 and value == 0:
            x, y = 0, y + 1
        elif count == 0 and value == 1:
            break
        elif count == 0 and value == 2:
            x, y, place = x + data[place] * unit, y + data[place + 1], place + 2
        else:
            unpack = _repeated if count else _literal
            run, place = unpack(data, place, count or value, header.compression)
            start, length = y * row_bytes + x, max(0, min(len(run), row_bytes - x))
            pixels[start : start + length] = run[:length]
            x += len(run)
    return pixels


def _repeated(data: bytes, place: int, count: int, compression: int) -> tuple[bytes, int]:
    """Unpack a colour that is repeated, whose first byte is before `place`; return where the next run begins."""
    if compression == _RLE8:
        return data[place - 1 : place] * count, place
    if compression == _RLE4:
        return (bytes(divmod(data[place - 1], 16)) * (count // 2 + 1))[:count], place
    return data[place - 1 : place + 2] * count, place + 2


def _literal(data: bytes, place: int, count: int, compression: int) -> tuple[bytes, int]:
    """Unpack colours that are written out, filled up to an even number of bytes; return where the next run begins."""
    size = count if compression == _RLE8 else (count + 1) // 2 if compression == _RLE4 else 3 * count
    stored, after = data[place : place + size], place + size + size % 2
    if len(stored) < size:
        raise damaged("BMP")
    if compression == _RLE4:
        stored = b"".join(bytes(divmod(byte, 16)) for byte in stored)[:count]
    return stored, after
