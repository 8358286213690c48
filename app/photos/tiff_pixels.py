"""Decoding of the kinds of TIFF that Pillow does not decode, or decodes wrongly: other sizes and types of numbers.

A lossless compression works on bytes, independent of their meaning. So the file gets another directory, which says
that each plane is a grey picture of 8 bits whose rows hold the same bytes; Pillow and libtiff decode that, and the
bytes are read as numbers here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin  # noqa: F401 - the plugin is registered when it is imported

from .refusals import damaged
from .tiff_directory import (
    BITS,
    COLOUR_MAP,
    COMPRESSION,
    FILL_ORDER,
    LENGTH,
    PHOTOMETRIC,
    ROWS,
    SAMPLES,
    STRIP_OFFSETS,
    TILE_LENGTH,
    TILE_WIDTH,
    WIDTH,
    Directory,
    is_big,
    read_page,
    with_first_directory,
)
from .tiff_layout import (
    BLACK_IS_ZERO,
    CMYK,
    FLOAT,
    FLOATING,
    HORIZONTAL,
    PALETTE,
    RGB,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    Layout,
    layout_of,
)

# Numbers that are converted at once.
_BLOCK_NUMBERS = 1 << 17

Numbers = npt.NDArray[np.generic]
Unsigned = npt.NDArray[np.unsignedinteger]
Bytes = npt.NDArray[np.uint8]


def open_tiff(data: bytes, max_pixels: int) -> Image.Image:
    """Open a TIFF; kinds that Pillow does not decode correctly are decoded at once, to 8 bits a sample.

    Raises what `layout_of` raises.
    """
    directory = read_page(data)
    layout = layout_of(directory, max_pixels)
    if layout.is_for_pillow:
        return Image.open(io.BytesIO(with_first_directory(data, directory)), formats=["TIFF"])
    image = _Pixels(data, directory, layout).image()
    image.getexif()[ExifTags.Base.Orientation] = layout.orientation
    return image


class _Pixels:
    """The decoded bytes of all planes, and their meaning."""

    def __init__(self, data: bytes, directory: Directory, layout: Layout) -> None:
        self._layout = layout
        self._order = directory.order
        self._palette = _palette(directory, layout.bits) if layout.photometric == PALETTE else np.zeros(0, np.uint8)
        used = layout.used_samples if layout.planes > 1 else 1
        self._planes: list[Image.Image] = []
        for number in range(used):
            with _plane(data, directory, layout, number) as file:  # a copy of all the file, closed once decoded
                plane = Image.open(file, formats=["TIFF"])
                plane.load()
            self._planes.append(plane)

    def image(self) -> Image.Image:
        """Convert all numbers to 8 bits: L, RGB, CMYK, or RGBA or RGBa for a transparent picture."""
        layout = self._layout
        modes = {RGB: "RGB", CMYK: "CMYK", PALETTE: "P"}
        mode = {1: "RGBa", 2: "RGBA"}[layout.alpha] if layout.alpha else modes.get(layout.photometric, "L")
        result = Image.new(mode, (layout.width, layout.height))
        if mode == "P":
            result.putpalette(self._palette.tobytes())
        black, white = self._levels()
        for top, numbers in self._blocks():
            colours = self._colours(numbers[..., : layout.colours], black, white)
            if layout.alpha:
                opacity = _to_8_bits(numbers[..., layout.colours :], 0, self._full())
                colours = np.concatenate([np.broadcast_to(colours, (*colours.shape[:2], 3)), opacity], axis=2)
            rows = np.ascontiguousarray(colours)
            result.paste(Image.frombuffer(mode, (layout.width, len(rows)), rows, "raw", mode, 0, 1), (0, top))
        return result

    def _colours(self, numbers: Numbers, black: float, white: float) -> Bytes:
        """Convert colours to 8 bits; those of a palette stay numbers, unless transparency is beside them."""
        if self._layout.photometric == PALETTE:
            indices = numbers.astype(np.uint8)
            return indices if self._layout.alpha is None else self._palette[indices[..., 0]]
        colours = _to_8_bits(numbers, black, white)
        return 255 - colours if self._layout.photometric == WHITE_IS_ZERO else colours

    def _levels(self) -> tuple[float, float]:
        """Find black and white: the full range of up to 16 bits; of other numbers, which have none, their own."""
        layout = self._layout
        if layout.sample_format == UNSIGNED and layout.bits <= 16:
            return 0, self._full()
        lowest, highest = np.inf, -np.inf
        for _, numbers in self._blocks():
            colours = numbers[..., : layout.colours]
            finite = colours if layout.sample_format != FLOAT else colours[np.isfinite(colours)]
            if finite.size:
                lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
        return (lowest, highest) if lowest <= highest else (0, 0)

    def _full(self) -> float:
        """Return the number for full opacity, and for white if the type fixes it."""
        if self._layout.sample_format == FLOAT:
            return 1
        return (1 << self._layout.bits - (self._layout.sample_format == SIGNED)) - 1

    def _blocks(self) -> Iterator[tuple[int, Numbers]]:
        """Yield some rows at a time: where they begin, and their numbers, of shape (rows, width, used samples)."""
        layout = self._layout
        step = max(1, _BLOCK_NUMBERS // (layout.parts.across * layout.parts.width * layout.samples))
        for top in range(0, layout.height, step):
            box = 0, top, layout.parts.across * layout.row_bytes, min(top + step, layout.height)
            planes = [self._numbers(np.asarray(plane.crop(box))) for plane in self._planes]
            yield top, planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _numbers(self, rows: Bytes) -> Numbers:
        """Read rows of one plane as numbers, of shape (rows, width, samples)."""
        layout = self._layout
        samples = layout.samples // layout.planes
        parts = rows.reshape(len(rows), layout.parts.across, layout.row_bytes)
        shape = (*parts.shape[:2], layout.parts.width, samples)
        if layout.predictor == FLOATING:
            numbers = _undo_floating_predictor(parts, shape, layout.bits // 8)
        else:
            stored = _read_unsigned(parts, layout.bits, self._order)[..., : shape[2] * samples].reshape(shape)
            if layout.predictor == HORIZONTAL:
                stored = np.cumsum(stored, axis=2, dtype=stored.dtype)
            numbers = _with_type(stored, layout.bits, layout.sample_format)
        whole = numbers.reshape(len(rows), -1, samples)[:, : layout.width]
        return whole[..., : layout.used_samples] if layout.planes == 1 else whole


def _palette(directory: Directory, bits: int) -> Bytes:
    """Read the colours of a palette, of shape (colours, 3); some programs write numbers of 8 bits instead of 16."""
    count = 1 << bits
    numbers = np.array(directory.numbers(COLOUR_MAP, 3 * count), np.uint32)
    if len(numbers) < 3 * count:
        raise damaged("TIFF")
    return (numbers if numbers.max() < 256 else numbers // 257).astype(np.uint8).reshape(3, count).T.copy()


def _plane(data: bytes, directory: Directory, layout: Layout, number: int) -> io.BytesIO:
    """Write the file with a directory for one plane: a grey picture of 8 bits that has the plane's bytes."""
    parts = layout.parts
    count, first = parts.count, number * parts.count
    offsets, lengths = (directory.numbers(tag, first + count)[first:] for tag in (parts.offsets, parts.lengths))
    if len(offsets) < count:
        raise damaged("TIFF")
    tags: dict[int, tuple[int, ...]] = {
        WIDTH: (parts.across * layout.row_bytes,),
        LENGTH: (layout.height,),
        BITS: (8,),
        COMPRESSION: (layout.compression,),
        PHOTOMETRIC: (BLACK_IS_ZERO,),
        FILL_ORDER: (layout.fill_order,),
        SAMPLES: (1,),
        parts.offsets: offsets,
    }
    tags |= {parts.lengths: lengths} if len(lengths) == count else {}
    tags |= {ROWS: (parts.height,)} if parts.offsets == STRIP_OFFSETS else {}
    tags |= {TILE_WIDTH: (layout.row_bytes,), TILE_LENGTH: (parts.height,)} if parts.offsets != STRIP_OFFSETS else {}
    return io.BytesIO(_with_directory(data, tags))


def _with_directory(data: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """Append a directory to a file, and have the header name it as the first."""
    big = is_big(data)
    letter, kind, header = ("Q", 16, 16) if big else ("I", 4, 8)
    start = len(data) + len(data) % 2
    values_start = start + struct.calcsize(f"<{'Q' if big else 'H'}{letter}") + len(tags) * (20 if big else 12)
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{letter}", *numbers)
        place = packed if len(numbers) == 1 else struct.pack(f"<{letter}", values_start + len(values))
        values += packed if len(numbers) > 1 else b""
        entries += struct.pack(f"<HH{letter}", tag, kind, len(numbers)) + place
    directory = struct.pack(f"<{'Q' if big else 'H'}", len(tags)) + entries + bytes(struct.calcsize(letter))
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", start) if big else b"II*\0" + struct.pack("<I", start)
    return b"".join([head, memoryview(data)[header:], bytes(len(data) % 2), directory, values])


def _read_unsigned(parts: Bytes, bits: int, order: str) -> Unsigned:
    """Read the last axis of packed bytes as unsigned numbers; those that are not whole bytes begin at the high bit."""
    if bits in (8, 16, 32, 64):
        whole = np.ascontiguousarray(parts).view(f"{order}u{bits // 8}")
        return whole.astype(whole.dtype.newbyteorder("="), copy=False)
    size = next(size for size in (8, 16, 32, 64) if size > bits)
    count = parts.shape[-1] * 8 // bits
    if bits == 24:
        used = parts[..., : count * 3].reshape(*parts.shape[:-1], count, 3)
        padded = np.zeros((*used.shape[:-1], 4), np.uint8)
        padded[..., 1:] = used if order == ">" else used[..., ::-1]
    else:
        single = np.unpackbits(parts, axis=-1)[..., : count * bits].reshape(*parts.shape[:-1], count, bits)
        spread = np.zeros((*single.shape[:-1], size), np.uint8)
        spread[..., size - bits :] = single
        padded = np.packbits(spread, axis=-1)
    numbers = padded.view(f">u{size // 8}")[..., 0]
    return numbers.astype(numbers.dtype.newbyteorder("="))


def _with_type(numbers: Unsigned, bits: int, sample_format: int) -> Numbers:
    """Return unsigned numbers of some bits as numbers of their own type."""
    if sample_format == FLOAT:
        return numbers.view(f"f{bits // 8}")
    if sample_format == SIGNED:
        spare = 8 * numbers.dtype.itemsize - bits
        signed: npt.NDArray[np.signedinteger] = (numbers << spare).view(f"i{numbers.dtype.itemsize}")
        return signed >> spare
    return numbers


def _undo_floating_predictor(parts: Bytes, shape: tuple[int, ...], size: int) -> Numbers:
    """Undo the predictor of TIFF Technical Note 3: differences of bytes, all highest bytes of a row first."""
    width, samples = shape[2:]
    steps = parts.reshape(*shape[:2], size * width, samples)
    summed = np.cumsum(steps, axis=2, dtype=np.uint8).reshape(*shape[:2], size, width * samples)
    numbers = np.ascontiguousarray(np.moveaxis(summed, 2, 3)).view(f">f{size}")
    return numbers.reshape(shape).astype(f"=f{size}")


def _to_8_bits(numbers: Numbers, black: float, white: float) -> Bytes:
    """Scale numbers so that black is 0 and white 255; NaN is black."""
    if numbers.dtype in (np.uint8, np.uint16):
        levels = np.arange(1 << 8 * numbers.dtype.itemsize, dtype=np.float32)
        return _scaled(levels, black, white)[numbers.astype(np.intp)]
    return _scaled(numbers.astype(np.float64 if numbers.dtype.itemsize == 8 else np.float32), black, white)


def _scaled(numbers: npt.NDArray[np.floating], black: float, white: float) -> Bytes:
    with np.errstate(over="ignore", invalid="ignore"):  # the difference of the largest numbers overflows
        numbers = (numbers - black) * (255.0 / (white - black or 1.0))
    np.rint(np.nan_to_num(numbers, copy=False, nan=0.0, posinf=255.0, neginf=0.0), out=numbers)
    return numbers.clip(0, 255, out=numbers).astype(np.uint8)
