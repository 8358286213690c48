"""What a PNG holds beside its pixels never costs the photo, and of it only the orientation counts."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from fakes import encode
from pictures import MAX_PIXELS, cat, filled
from PIL import Image, PngImagePlugin

from app.errors import BrokenImage, TooCostly, UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine

PHOTO = encode(cat(40, 30))
PIXELS = np.asarray(cat(40, 30))
FRAME = struct.pack(">IIIIHHBB", 40, 30, 0, 0, 1, 10, 0, 0)


def chunk(kind: bytes, content: bytes, *, is_intact: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (not is_intact)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunks(*chunks: bytes, data: bytes = PHOTO, after: bool = False) -> bytes:
    """Put chunks before the pixels, or behind them."""
    place = data.index(b"IEND" if after else b"IDAT") - 4
    return data[:place] + b"".join(chunks) + data[place:]


BESIDE = {
    "2 MB of packed text": chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2_000_000))),
    "2 MB of text": chunk(b"tEXt", b"note\0" + b"x" * 2_000_000),
    "2 MB of packed Unicode": chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
    "100 MB of packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 1)),
    "text that is no text": chunk(b"zTXt", b"note\0\0nonsense"),
    "text of an unknown packing": chunk(b"zTXt", b"note\0\7nonsense"),
    "text without an end": chunk(b"iTXt", b"note"),
    "a profile of 2 MB": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(2_000_000))),
    "a profile of an unknown packing": chunk(b"iCCP", b"name\0\7nonsense"),
    "a profile without an end": chunk(b"iCCP", b"name"),
    "a wrong checksum": chunk(b"pHYs", bytes(9), is_intact=False),
    "a wrong checksum of EXIF": chunk(b"eXIf", b"II*\0nonsense", is_intact=False),
    "a short chunk": chunk(b"pHYs", b""),
    "short gamma": chunk(b"gAMA", b"\1"),
    "short chromaticities": chunk(b"cHRM", b"\1\2"),
    "a short intent": chunk(b"sRGB", b""),
    "a private chunk": chunk(b"prVt", b"anything"),
    "an animation without frames": chunk(b"acTL", struct.pack(">II", 2, 0)),
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "two animations": chunk(b"acTL", struct.pack(">II", 2, 0)) * 2,
    "a short animation": chunk(b"acTL", b"\0"),
    "a frame out of order": chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", struct.pack(">I", 7) + FRAME),
    "a frame outside": chunk(b"fcTL", struct.pack(">IIIII", 0, 40, 30, 9, 9) + bytes(6)),
    "a short frame": chunk(b"fcTL", b"\0"),
    "a frame's data without its frame": chunk(b"fdAT", b"\0\0\0\1nonsense"),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", BESIDE)
def test_what_is_beside_the_pixels_never_costs_the_photo(name: str, after: bool):
    data = with_chunks(BESIDE[name], after=after)
    examine(data, max_pixels=MAX_PIXELS)
    photo = decode(data, max_pixels=MAX_PIXELS)
    assert (np.asarray(photo.pixels) == PIXELS).all()
    assert photo.orientation == 1


def stored(*, rows: int = 30) -> bytes:
    """Write a black PNG of 40 columns whose compressed pixels end after some rows."""
    header = struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(rows * 121)))
    return PHOTO[:8] + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


# Columns and rows of each pass of 40x30 pixels (PNG, section 8.2), and the bytes of all.
PASSES = [(5, 4), (5, 4), (10, 4), (10, 8), (20, 7), (20, 15), (40, 15)]
ADAM7 = sum(rows * (1 + 3 * columns) for columns, rows in PASSES)


@pytest.mark.parametrize("rows", [0, 1, 15, 29])
@pytest.mark.parametrize("black", [False, True])
def test_pixels_that_end_before_the_last_row_are_damaged(black: bool, rows: int):
    data = stored(rows=rows)
    if not black:
        raw = zlib.decompress(PHOTO[PHOTO.index(b"IDAT") + 4 : PHOTO.index(b"IEND") - 8])
        start = PHOTO.index(b"IDAT") - 4
        data = PHOTO[:start] + chunk(b"IDAT", zlib.compress(raw[: rows * 121])) + chunk(b"IEND", b"")
    with pytest.raises(BrokenImage):
        decode(data, max_pixels=MAX_PIXELS)


def test_black_rows_are_not_taken_for_missing_ones():
    assert not np.asarray(decode(stored(), max_pixels=MAX_PIXELS).pixels).any()
    assert not np.asarray(decode(stored(rows=31), max_pixels=MAX_PIXELS).pixels).any()


@pytest.mark.parametrize(("lacking", "is_whole"), [(0, True), (1, False), (121, False), (15 * 121, False)])
def test_an_interlaced_picture_needs_all_its_passes(lacking: int, is_whole: bool):
    header = struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 1)
    pixels = chunk(b"IDAT", zlib.compress(bytes(ADAM7 - lacking)))
    data = PHOTO[:8] + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    if is_whole:
        assert decode(data, max_pixels=MAX_PIXELS).width == 40
    else:
        with pytest.raises(BrokenImage):
            decode(data, max_pixels=MAX_PIXELS)


def test_an_animation_shows_its_first_picture():
    frames = [cat(40, 30), cat(40, 30).rotate(180)]
    data = encode(frames[0], save_all=True, append_images=frames[1:])
    assert b"acTL" in data
    assert (np.asarray(decode(data, max_pixels=MAX_PIXELS).pixels) == PIXELS).all()


def test_pixels_in_many_chunks_are_put_together():
    start = PHOTO.index(b"IDAT") - 4
    size = int.from_bytes(PHOTO[start : start + 4], "big")
    stored = PHOTO[start + 8 : start + 8 + size]
    parts = b"".join(chunk(b"IDAT", stored[place : place + 10]) for place in range(0, size, 10))
    split = PHOTO[:start] + parts + PHOTO[start + 12 + size :]
    assert (np.asarray(decode(split, max_pixels=MAX_PIXELS).pixels) == PIXELS).all()


@pytest.mark.parametrize("is_intact", [True, False])
def test_transparency_counts_if_it_is_intact(is_intact: bool):
    photo = encode(Image.new("L", (40, 30), 7))
    data = with_chunks(chunk(b"tRNS", b"\0\7", is_intact=is_intact), data=photo)
    crop = decode(data, max_pixels=MAX_PIXELS).thumbnail(40)
    assert (crop == (255 if is_intact else 7)).all()


EXIF = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
HEXADECIMAL = b"\nexif\n  %8d\n" % (6 + len(EXIF)) + (b"Exif\0\0" + EXIF).hex().encode()
TURNED = {
    "EXIF": chunk(b"eXIf", EXIF),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    "XMP in an element": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>"),
    "EXIF in digits": chunk(b"tEXt", b"Raw profile type exif\0" + HEXADECIMAL),
    "EXIF in packed digits": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(HEXADECIMAL)),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", TURNED)
def test_the_orientation_is_read_from_all_its_places(name: str, after: bool):
    data = with_chunks(BESIDE["a wrong checksum"], TURNED[name], after=after)
    photo = decode(data, max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height, photo.orientation) == (30, 40, 6)
    assert (photo.thumbnail(40) == np.asarray(cat(40, 30).rotate(-90, expand=True))).all()


@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"eXIf", b""),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"eXIf", EXIF[:-9]),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nzz"),
        chunk(b"tEXt", b"Raw profile type exif\0"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    ],
)
def test_a_broken_orientation_is_none(broken: bytes):
    assert decode(with_chunks(broken), max_pixels=MAX_PIXELS).orientation == 1


def test_an_orientation_of_pillow_is_the_same():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    data = encode(cat(40, 30), pnginfo=text)
    assert Image.open(io.BytesIO(data)).getexif()[274] == decode(data, max_pixels=MAX_PIXELS).orientation == 6


def test_broken_pixels_stay_damaged():
    place = PHOTO.index(b"IDAT") + 4
    with pytest.raises(BrokenImage):
        decode(PHOTO[:place] + b"\0" * 50 + PHOTO[place + 50 :], max_pixels=MAX_PIXELS)


def test_apple_s_own_form_is_named():
    data = PHOTO[:8] + chunk(b"CgBI", bytes(4)) + PHOTO[8:]
    with pytest.raises(UnsupportedImage, match="This kind of PNG is not supported: Apple's own form of it"):
        decode(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("after", [False, True])
def test_chunks_without_end_are_refused_by_their_number(after: bool):
    with pytest.raises(TooCostly, match="chunks"):
        examine(with_chunks(chunk(b"prVt", b"") * 50_001, after=after), max_pixels=MAX_PIXELS)


AREA = (slice(5, 15), slice(10, 30))


def png(samples: np.ndarray, depth: int, colour: int, *chunks: bytes) -> bytes:
    """Write a PNG from samples of shape (height, width, channels), packed as its depth says."""
    height, width, _ = samples.shape
    bits = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(height, -1, 2), axis=-1)[..., 16 - depth :]
    rows = np.packbits(bits.reshape(height, -1), axis=1)
    packed = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PHOTO[:8] + header + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "value"),
    [(1, 0, (0,)), (2, 0, (2,)), (4, 0, (9,)), (8, 0, (77,)), (16, 0, (0x1234,)), (8, 2, (7, 200, 99))]
    + [(16, 2, (0x0712, 0xC834, 0x6356))],
)
def test_a_transparent_colour_of_each_depth_is_white(depth: int, colour: int, value: tuple[int, ...]):
    top = (1 << depth) - 1
    samples = np.full((20, 40, len(value)), top // 3 if depth > 1 else 1)
    samples[AREA] = value
    transparency = chunk(b"tRNS", struct.pack(f">{len(value)}H", *value))
    pixels = decode(png(samples, depth, colour, transparency), max_pixels=MAX_PIXELS).thumbnail(40)
    expected = np.broadcast_to(np.rint(samples * (255 / top)), (20, 40, 3)).copy()
    expected[AREA] = 255
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("content", [b"", b"\0", bytes(2), bytes(50)])
def test_transparency_of_a_wrong_length_is_ignored(content: bytes):
    samples = np.asarray(Image.new("RGB", (40, 30)))
    data = png(samples, 8, 2, chunk(b"tRNS", content))
    assert (decode(data, max_pixels=MAX_PIXELS).thumbnail(40) == 0).all()


def test_a_png_that_lacks_its_palette_is_damaged():
    data = png(np.zeros((30, 40, 1), np.uint8), 8, 3)
    with pytest.raises(BrokenImage):
        decode(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_png_that_ends_in_filling_is_damaged(mode: str, share: float, filling: bytes):
    with pytest.raises(BrokenImage):
        decode(filled(encode(cat(400, 300).convert(mode), "PNG"), share, filling), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_black_png_is_whole(mode: str, level: int):
    data = encode(Image.new(mode, (400, 300)), "PNG", compress_level=level) + bytes(500)
    assert decode(data, max_pixels=MAX_PIXELS).width == 400
