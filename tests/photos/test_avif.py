"""AVIF: its clean aperture is the photo, any brands name it, and a gain map or zeros are not taken for its pixels."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from fakes import encode
from pictures import MAX_PIXELS, cat, filled
from PIL import Image

from app.errors import BrokenImage
from app.photos.decoding import decode

PICTURE = cat(320, 240)
FILES = {"AVIF": encode(PICTURE, "AVIF", quality=95, speed=10), "HEIC": encode(PICTURE, "HEIF", quality=95)}
# Width, height, and how far the centre is moved, each a numerator and a denominator.
CLEAN = struct.pack(">IIIIiIiI", 100, 1, 160, 2, -60, 1, 40, 1)
CLEAN_BOX = (50, 120, 150, 200)


def with_property(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Give a file's only picture one more property; the boxes around it grow, and the pixels move."""
    added = struct.pack(">I", 8 + len(content)) + kind + content
    links = data.index(b"ipma") - 4
    count = links + 18  # of the properties of the picture
    links_end = links + int.from_bytes(data[links : links + 4], "big")
    number = 1 + max(byte & 0x7F for byte in data[count + 1 : links_end])
    linked = bytes([data[count] + 1]) + data[count + 1 : links_end] + bytes([0x80 | number])
    changed = data[:links] + added + data[links:count] + linked + data[links_end:]
    for name, grown in ((b"ipma", 1), (b"ipco", len(added)), (b"iprp", len(added) + 1), (b"meta", len(added) + 1)):
        changed = added_to(changed, changed.index(name) - 4, grown)
    place = data.index(b"mdat") + 4
    return added_to(changed, changed.index(struct.pack(">I", place), changed.index(b"iloc")), len(added) + 1)


def added_to(data: bytes, place: int, by: int) -> bytes:
    return data[:place] + struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + by) + data[place + 4 :]


def shown(data: bytes) -> np.ndarray:
    return decode(data, max_pixels=MAX_PIXELS).thumbnail(320).astype(int)


@pytest.mark.parametrize(
    ("kind", "content", "upright"),
    [
        (b"", b"", None),
        (b"irot", b"\1", Image.Transpose.ROTATE_90),
        (b"irot", b"\2", Image.Transpose.ROTATE_180),
        (b"imir", b"\1", Image.Transpose.FLIP_LEFT_RIGHT),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_the_clean_aperture_is_the_photo(name: str, kind: bytes, content: bytes, upright: Image.Transpose | None):
    data = with_property(FILES[name], b"clap", CLEAN)
    expected = PICTURE.crop(CLEAN_BOX)
    if upright is not None:
        data, expected = with_property(data, kind, content), expected.transpose(upright)
    photo = decode(data, max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == expected.size
    assert np.abs(shown(data) - np.asarray(expected)).mean() < 5


@pytest.mark.parametrize(
    "content",
    [bytes(32), struct.pack(">IIIIiIiI", 100, 1, 80, 1, 900, 1, 0, 1), struct.pack(">8I", *[0, 1] * 4)],
    ids=["no denominators", "outside", "empty"],
)
def test_an_impossible_clean_aperture_of_an_avif_is_ignored(content: bytes):
    assert (shown(with_property(FILES["AVIF"], b"clap", content)) == shown(FILES["AVIF"])).all()


@pytest.mark.parametrize("brands", ["tmap avif mif1", "avif mif1 tmap", "mif1 miaf tmap", "tmap", "miaf", "mif2"])
@pytest.mark.parametrize("name", FILES)
def test_brands_of_gain_maps_and_of_any_picture_are_read(name: str, brands: str):
    listed = [brand.encode() for brand in brands.replace("avif", "avif" if name == "AVIF" else "heic").split()]
    data = FILES[name]
    room = (int.from_bytes(data[:4], "big") - 16) // 4
    named = listed[0] + bytes(4) + b"".join((listed * room)[:room])
    photo = decode(data[:8] + named + data[8 + len(named) :], max_pixels=MAX_PIXELS)
    assert photo.format == name
    assert (photo.thumbnail(320) == shown(data)).all()


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_avif_that_ends_in_filling_is_damaged(share: float, filling: bytes):
    with pytest.raises(BrokenImage):
        decode(filled(FILES["AVIF"], share, filling), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("colour", ["black", "white", "grey"])
def test_an_avif_of_one_colour_is_whole(colour: str):
    data = encode(Image.new("RGB", (320, 240), colour), "AVIF", quality=100)
    assert decode(data, max_pixels=MAX_PIXELS).width == 320
