"""Every kind of BMP has the pixels that it was written with, or is refused by name."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pictures import MAX_PIXELS, cat

from app.errors import BrokenImage, TooManyPixels, UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine

WIDTH, HEIGHT = 21, 13
COLOURS = np.asarray(cat(WIDTH, HEIGHT))
CHANCE = np.random.default_rng(1)
Levels = npt.NDArray[np.uint8]


def bmp(
    stored: bytes,
    bits: int,
    compression: int = 0,
    *,
    header_bytes: int = 40,
    masks: tuple[int, ...] = (),
    palette: Levels | None = None,
    height: int = HEIGHT,
    colours: int | None = None,
    start: int | None = None,
) -> bytes:
    """Write a BMP around stored rows; masks are those of red, green, blue and transparency."""
    entry = 3 if header_bytes == 12 else 4
    count = 0 if palette is None else len(palette)
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, WIDTH, height, 1, bits)
    else:
        sizes = (len(stored), 2835, 2835, count if colours is None else colours, 0)
        header = struct.pack("<IiiHHI5I", header_bytes, WIDTH, height, 1, bits, compression, *sizes)
        header = header[: max(16, min(40, header_bytes))]
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(header_bytes, b"\0")
    for colour in [] if palette is None else palette:
        header += bytes(colour[::-1]) + bytes(entry - 3)
    place = 14 + len(header) if start is None else start
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(stored), 0, 0, place) + header + stored


def rows(pixels: npt.NDArray[np.generic], *, top_down: bool = False) -> bytes:
    """Write rows of whole bytes, the lowest first, each filled up to four bytes."""
    lines = [line.tobytes() for line in pixels]
    return b"".join(line + bytes(-len(line) % 4) for line in (lines if top_down else lines[::-1]))


def packed(indices: Levels, bits: int) -> Levels:
    spread = np.unpackbits(indices[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(spread.reshape(len(indices), -1), axis=1)


def as_shown(data: bytes) -> npt.NDArray[np.int16]:
    photo = decode(data, max_pixels=MAX_PIXELS)
    assert (photo.format, photo.width, photo.height) == ("BMP", WIDTH, HEIGHT)
    return photo.thumbnail(WIDTH).astype(np.int16)


@pytest.mark.parametrize("header_bytes", [12, 16, 40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_every_palette(bits: int, header_bytes: int):
    palette = CHANCE.integers(0, 256, (2**bits, 3), np.uint8)
    indices = CHANCE.integers(0, 2**bits, (HEIGHT, WIDTH), np.uint8)
    data = bmp(rows(packed(indices, bits)), bits, palette=palette, header_bytes=header_bytes)
    assert (as_shown(data) == palette[indices]).all()


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_of_black_and_white_keeps_its_bits(bits: int):
    palette = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    indices = CHANCE.integers(0, 2, (HEIGHT, WIDTH), np.uint8)
    assert (as_shown(bmp(rows(packed(indices, bits)), bits, palette=palette)) == palette[indices]).all()


@pytest.mark.parametrize("count", [3, 256])
def test_a_palette_may_be_shorter_or_longer_than_its_bits(count: int):
    palette = CHANCE.integers(0, 256, (count, 3), np.uint8)
    indices = CHANCE.integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    assert (as_shown(bmp(rows(packed(indices, 4)), 4, palette=palette)) == palette[indices]).all()


def test_grey_levels_stay_grey():
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    grey = CHANCE.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    photo = decode(bmp(rows(grey), 8, palette=levels), max_pixels=MAX_PIXELS)
    assert photo.pixels.mode == "L"
    assert (np.asarray(photo.pixels) == grey).all()


@pytest.mark.parametrize("start", [0, 54])
def test_a_missing_place_of_the_pixels_is_worked_out(start: int):
    palette = CHANCE.integers(0, 256, (16, 3), np.uint8)
    indices = CHANCE.integers(0, 16, (HEIGHT, WIDTH), np.uint8)
    assert (as_shown(bmp(rows(packed(indices, 4)), 4, palette=palette, start=start)) == palette[indices]).all()


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("top_down", [False, True])
def test_colours_are_those_of_another_decoder(top_down: bool, bits: int):
    stored = COLOURS[..., ::-1]
    if bits == 32:  # the fourth byte means nothing here
        stored = np.concatenate([stored, CHANCE.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)], axis=-1)
    data = bmp(rows(stored, top_down=top_down), bits, height=-HEIGHT if top_down else HEIGHT)
    assert (as_shown(data) == COLOURS).all()
    if not top_down:
        assert (as_shown(data) == imagecodecs.bmp_decode(data)[..., :3]).all()


def masked(masks: tuple[int, ...], colours: Levels, dtype: str) -> tuple[npt.NDArray[np.generic], Levels]:
    """Put the highest bits of colours where masks say; returns the pixels, and what each colour becomes."""
    pixels = np.zeros(colours.shape[:2], np.uint64)
    shown = np.zeros(colours.shape, np.uint8)
    for band, mask in enumerate(masks):
        if mask:
            shift, most = (mask & -mask).bit_length() - 1, mask >> ((mask & -mask).bit_length() - 1)
            stored = colours[..., band].astype(np.uint64) * most // 255
            pixels |= stored << np.uint64(shift)
            shown[..., band] = stored * 255 // most
    return pixels.astype(dtype), shown


@pytest.mark.parametrize("header_bytes", [40, 52, 108])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0x7C00, 0x3E0, 0x1F)),
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0xF00, 0xF0, 0xF)),
        (16, (0x1F, 0x7E0, 0xF800)),
        (16, (0xE0, 0x1C, 0x3)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
        (32, (0xFF, 0xFF00, 0xFF0000)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF)),
        (32, (0x7F000000, 0x1F0000, 0x7F)),
        (32, (0xFFFF0000, 0xFF00, 0xF)),
    ],
)
def test_colours_may_be_in_any_bits(bits: int, masks: tuple[int, ...], header_bytes: int):
    pixels, shown = masked(masks, COLOURS, f"<u{bits // 8}")
    stored_masks = masks if header_bytes == 40 else (*masks, 0)
    data = bmp(rows(pixels), bits, 3, header_bytes=header_bytes, masks=stored_masks)
    assert np.abs(as_shown(data) - shown).max() <= 1


@pytest.mark.parametrize(
    ("bits", "masks"), [(16, (0xF00, 0xF0, 0xF, 0xF000)), (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000))]
)
@pytest.mark.parametrize("opacity", [0, 255, None])
def test_transparency_counts_only_if_any_pixel_has_it(opacity: int | None, bits: int, masks: tuple[int, ...]):
    alpha = np.full((HEIGHT, WIDTH, 1), opacity or 0, np.uint8)
    if opacity is None:
        alpha[:, ::2] = 255
    pixels, shown = masked(masks, np.concatenate([COLOURS, alpha], axis=-1), f"<u{bits // 8}")
    found = as_shown(bmp(rows(pixels), bits, 3, header_bytes=124, masks=masks))
    expected = shown[..., :3].copy()
    if opacity is None:
        expected[:, 1::2] = 255
    assert np.abs(found - expected).max() <= 1


def test_a_header_of_40_bytes_may_have_a_fourth_mask():
    colours = np.concatenate([COLOURS, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=-1)
    pixels, shown = masked((0xFF, 0xFF00, 0xFF0000, 0xFF000000), colours, "<u4")
    data = bmp(rows(pixels), 32, 6, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000))
    assert (as_shown(data) == shown[..., :3]).all()


END_OF_LINE, END = b"\0\0", b"\0\1"


def runs(indices: Levels, bits: int) -> bytes:
    """Write each row as runs of one colour, and as colours written out where they change."""
    out = b""
    for line in indices[::-1].tolist():
        for first in range(0, WIDTH, 7):
            part = line[first : first + 7]
            if len(set(part)) == 1:
                out += bytes([len(part), part[0] * (17 if bits == 4 else 1)])
            elif len(part) < 3:
                out += b"".join(bytes([1, index << 4 if bits == 4 else index]) for index in part)
            else:
                stored = bytes(part)
                if bits == 4:
                    padded = part + [0] * (len(part) % 2)
                    stored = bytes(high * 16 + low for high, low in zip(padded[::2], padded[1::2], strict=True))
                out += bytes([0, len(part)]) + stored + bytes(len(stored) % 2)
        out += END_OF_LINE
    return out + END


@pytest.mark.parametrize("bits", [4, 8])
def test_runs_are_unpacked(bits: int):
    palette = CHANCE.integers(0, 256, (2**bits, 3), np.uint8)
    indices = CHANCE.integers(0, 2**bits, (HEIGHT, WIDTH), np.uint8)
    indices[:, :7] = 3
    data = bmp(runs(indices, bits), bits, 2 if bits == 4 else 1, palette=palette)
    assert (as_shown(data) == palette[indices]).all()


def test_runs_skip_rows_and_pixels_and_end_early():
    palette = np.arange(768, dtype=np.uint8).reshape(256, 3)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    # An empty row, a run that is longer than its row, a jump of 3 to the right and 2 up, and an early end.
    stored = END_OF_LINE + bytes([30, 5]) + END_OF_LINE + bytes([2, 7]) + b"\0\2\3\2" + bytes([4, 9]) + END
    expected[-2] = 5
    expected[-3, :2] = 7
    expected[-5, 5:9] = 9
    assert (as_shown(bmp(stored, 8, 1, palette=palette)) == palette[expected]).all()


def test_runs_of_24_bits_are_those_of_os2():
    line = bytes([WIDTH, 10, 20, 30]) + END_OF_LINE
    stored = line * (HEIGHT - 1) + b"\0\3" + bytes([1, 2, 3] * 3) + b"\0" + bytes([WIDTH - 3, 7, 8, 9]) + END
    found = as_shown(bmp(stored, 24, 4, header_bytes=64))
    assert (found[1:] == [30, 20, 10]).all()
    assert (found[0, :3] == [3, 2, 1]).all()
    assert (found[0, 3:] == [9, 8, 7]).all()


def test_runs_without_their_end_are_whole_if_no_pixel_is_missing():
    palette = CHANCE.integers(0, 256, (256, 3), np.uint8)
    indices = np.full((HEIGHT, WIDTH), 9, np.uint8)
    stored = runs(indices, 8).removesuffix(END).removesuffix(END_OF_LINE)
    assert (as_shown(bmp(stored, 8, 1, palette=palette)) == palette[9]).all()
    with pytest.raises(BrokenImage):
        decode(bmp(stored[:-2], 8, 1, palette=palette), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_pixels_cut_short_are_damaged(bits: int):
    stored = bytes((WIDTH * bits + 31) // 32 * 4 * HEIGHT)
    palette = np.zeros((256, 3), np.uint8) if bits == 8 else None
    last_row_padding = len(stored) // HEIGHT - (WIDTH * bits + 7) // 8
    as_shown(bmp(stored[: len(stored) - last_row_padding], bits, palette=palette))
    with pytest.raises(BrokenImage):
        decode(bmp(stored[: len(stored) - last_row_padding - 1], bits, palette=palette), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    ("bits", "compression", "header_bytes", "feature"),
    [
        (0, 4, 40, "JPEG compression"),
        (0, 5, 40, "PNG compression"),
        (1, 3, 64, "fax compression"),
        (24, 11, 40, "compression of number 11"),
        (64, 0, 40, "64 bits a pixel"),
        (24, 3, 40, "24 bits a pixel"),
        (4, 1, 40, "4 bits a pixel"),
    ],
)
def test_what_is_not_supported_is_named(bits: int, compression: int, header_bytes: int, feature: str):
    data = bmp(bytes(400), bits, compression, header_bytes=header_bytes)
    for read in (decode, examine):
        with pytest.raises(UnsupportedImage, match=f"This kind of BMP is not supported: {feature}"):
            read(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("height", [100_000_000, -100_000_000, -(2**31)])
def test_a_huge_height_is_refused_by_the_header(height: int):
    with pytest.raises(TooManyPixels):
        examine(bmp(b"", 24, height=height), max_pixels=MAX_PIXELS)


def test_runs_cost_what_the_most_runs_in_the_file_take():
    palette = np.zeros((256, 3), np.uint8)
    files = (bmp(bytes(size), 8, 1, palette=palette) for size in (10, 10_000_000))
    short, long = (examine(data, max_pixels=MAX_PIXELS).seconds for data in files)
    assert short < 0.01
    assert long > 2


def test_a_thousand_empty_rows_are_decoded():
    stored = END_OF_LINE * 1000 + END
    data = bytearray(bmp(stored, 8, 1, palette=np.zeros((256, 3), np.uint8)))
    data[18:26] = struct.pack("<ii", 1, 1000)
    assert decode(bytes(data), max_pixels=MAX_PIXELS).height == 1000
