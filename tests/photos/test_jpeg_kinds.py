"""A JPEG that lacks its end marker alone is a photo; kinds of JPEG that are not supported are named."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from fakes import encode
from pictures import MAX_PIXELS, cat, filled
from PIL import Image

from app.errors import BrokenImage, UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine

END = b"\xff\xd9"
KINDS: dict[str, dict[str, object]] = {
    "usual": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "full chroma": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 3},
}


def saved(name: str, mode: str = "RGB", size: tuple[int, int] = (150, 110)) -> bytes:
    return encode(cat(*size).convert(mode), "JPEG", quality=90, **KINDS[name])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", KINDS)
def test_a_jpeg_without_its_end_is_whole(name: str, mode: str):
    data = saved(name, mode)
    assert data.endswith(END)
    whole = decode(data, max_pixels=MAX_PIXELS)
    for shorter in (data[:-2], data[:-1]):
        photo = decode(shorter, max_pixels=MAX_PIXELS)
        assert np.array_equal(np.asarray(photo.pixels), np.asarray(whole.pixels))


def test_a_large_jpeg_without_its_end_is_decoded_small():
    photo = decode(saved("usual", size=(2400, 1600))[:-2], max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == (2400, 1600)
    assert photo.pixels.size == (1200, 800)


@pytest.mark.parametrize("missing", [12, 40, 200, 1000])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", KINDS)
def test_a_jpeg_that_lacks_pixels_is_damaged(name: str, mode: str, missing: int):
    for data in (saved(name, mode)[:-missing], saved(name, mode, (2400, 1600))[:-missing]):
        with pytest.raises(BrokenImage):
            decode(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("follows", [True, False], ids=["the rest follows", "nothing follows"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("name", KINDS)
def test_a_marker_before_the_last_pixels_is_damage(name: str, share: float, follows: bool):
    for data in (saved(name), saved(name, "L"), saved(name, "CMYK", (1200, 800))):
        scan = data.index(b"\xff\xda") + 14
        cut = scan + int((len(data) - scan) * share)
        for marker in (END, b"\xff\xc4"):
            with pytest.raises(BrokenImage):
                decode(data[:cut] + marker + data[cut:] * follows, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("level", [0, 127, 128, 255])
@pytest.mark.parametrize("name", KINDS)
def test_a_picture_of_one_grey_is_whole(name: str, level: int):
    data = encode(Image.new("RGB", (150, 110), (level,) * 3), "JPEG", **KINDS[name])
    assert decode(data + bytes(300), max_pixels=MAX_PIXELS).pixels.getpixel((149, 109)) == (level,) * 3


def test_a_progressive_jpeg_with_fewer_scans_and_an_end_is_whole():
    data = saved("progressive")
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    tables = data.rindex(b"\xff\xc4", 0, scans[-1])  # before the last scan
    assert decode(data[:tables] + END, max_pixels=MAX_PIXELS).width == 150


def test_a_progressive_jpeg_that_lacks_whole_scans_is_damaged():
    data = saved("progressive")
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        with pytest.raises(BrokenImage):
            decode(data[:scan], max_pixels=MAX_PIXELS)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(content) + 2) + content


@pytest.mark.parametrize(
    "beside",
    [
        segment(0xE0, b"JFIF"),
        segment(0xE0, b"JFIF\0\1"),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b""),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_metadata_that_ends_early_never_costs_the_photo(mode: str, beside: bytes):
    exif = Image.Exif()
    exif[274] = 6
    data = encode(cat(40, 30).convert(mode), "JPEG", exif=exif)
    photo = decode(data[:2] + beside + data[2:], max_pixels=MAX_PIXELS)
    assert np.array_equal(np.asarray(photo.pixels), np.asarray(decode(data, max_pixels=MAX_PIXELS).pixels))
    assert photo.orientation in (1, 6)  # two pieces of EXIF data have no agreed order


def jpeg_of_colours(count: int) -> bytes:
    """Write a JPEG whose header says that it has some number of colours."""
    data = bytearray(encode(cat(40, 30).convert("L"), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 2 : place + 4] = (8 + 3 * count).to_bytes(2, "big")
    data[place + 9] = count
    component = bytes(data[place + 10 : place + 13])
    return bytes(data[: place + 13] + component * (count - 1) + data[place + 13 :])


GREY = np.asarray(cat(40, 30).convert("L"))


@pytest.mark.parametrize(
    ("data", "feature"),
    [
        (imagecodecs.jpeg_encode(GREY.astype(np.uint16) * 16, bitspersample=12), "12 bits a sample"),
        (imagecodecs.jpegls_encode(GREY), "JPEG-LS"),
        (imagecodecs.ljpeg_encode(GREY.astype(np.uint16) * 64, bitspersample=14), "14 bits a sample"),
        (encode(cat(40, 30), "JPEG").replace(b"\xff\xc0", b"\xff\xc5"), "several sizes in one picture"),
        (jpeg_of_colours(2), "2 colours"),
        (jpeg_of_colours(5), "5 colours"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_is_named(data: bytes, feature: str):
    for read in (decode, examine):
        with pytest.raises(UnsupportedImage) as refusal:
            read(data, max_pixels=MAX_PIXELS)
        assert (
            refusal.value.detail == f"This kind of JPEG is not supported: {feature}. Save it as a usual JPEG or PNG."
        )


@pytest.mark.parametrize("colours", [GREY, np.asarray(cat(40, 30))], ids=["grey", "colours"])
def test_lossless_jpeg_of_8_bits_is_read(colours: np.ndarray):
    data = imagecodecs.jpeg_encode(colours, lossless=True)
    assert b"\xff\xc3" in data
    shown = decode(data, max_pixels=MAX_PIXELS).thumbnail(40)
    assert (shown == np.asarray(Image.fromarray(colours).convert("RGB"))).all()


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("name", KINDS)
def test_a_jpeg_that_ends_in_filling_is_damaged(name: str, share: float, filling: bytes):
    with pytest.raises(BrokenImage):
        decode(filled(saved(name), share, filling), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_jpeg_that_lacks_only_its_end_marker_may_end_in_fill_bytes(count: int):
    data = saved("usual").removesuffix(b"\xff\xd9") + b"\xff" * count
    assert decode(data, max_pixels=MAX_PIXELS).width == 150


def test_zeros_behind_the_end_of_a_jpeg_do_not_matter():
    data = saved("usual") + bytes(5000)
    assert decode(data, max_pixels=MAX_PIXELS).width == 150
