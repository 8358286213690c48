"""What a WebP holds beside its pixels never costs the photo; missing pixels do."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from fakes import encode
from pictures import MAX_PIXELS, cat
from PIL import Image

from app.errors import BrokenImage
from app.photos.decoding import decode

EXIF = Image.Exif()
EXIF[274] = 6
OPTIONS: dict[str, dict[str, object]] = {"lossy": {"quality": 80}, "lossless": {"lossless": True}}
MODES = ["RGB", "RGBA"]


def webp(name: str, mode: str, **more: object) -> bytes:
    picture = cat(40, 30).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize((40, 30)))
    return encode(picture, "WEBP", **OPTIONS[name], **more)


def with_size(data: bytes, size: int) -> bytes:
    return data[:4] + struct.pack("<I", size) + data[8:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIONS)
def test_metadata_that_ends_early_never_costs_the_photo(name: str, mode: str):
    data = webp(name, mode, exif=EXIF, icc_profile=bytes(200))
    pixels = np.asarray(decode(data, max_pixels=MAX_PIXELS).pixels)
    start = data.index(b"EXIF")
    for end in (start, start + 4, start + 9, len(data) - 3):
        photo = decode(data[:end], max_pixels=MAX_PIXELS)
        assert np.array_equal(np.asarray(photo.pixels), pixels)
        assert photo.orientation == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_size_of_the_file_never_costs_the_photo(name: str, mode: str):
    data = webp(name, mode, exif=EXIF)
    same = decode(data, max_pixels=MAX_PIXELS)
    for size in (0, 8, len(data) + 100, len(data) - 20):
        photo = decode(with_size(data, size), max_pixels=MAX_PIXELS)
        assert np.array_equal(np.asarray(photo.pixels), np.asarray(same.pixels))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIONS)
def test_missing_pixels_are_damaged(name: str, mode: str):
    data = webp(name, mode)
    for missing in (2, 20, len(data) // 2):
        for short in (data[:-missing], with_size(data[:-missing], len(data) - missing - 8)):
            with pytest.raises(BrokenImage):
                decode(short, max_pixels=MAX_PIXELS)


def test_an_animation_cut_short_is_damaged():
    data = encode(cat(40, 30), "WEBP", save_all=True, append_images=[cat(40, 30).rotate(90)])
    with pytest.raises(BrokenImage):
        decode(data[:-10], max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_ends_in_filling_is_damaged(share: float, filling: bytes, name: str, mode: str):
    picture = cat(400, 300).convert(mode)
    for more in ({}, {"save_all": True, "append_images": [picture.rotate(90)]}):
        data = encode(picture, "WEBP", **OPTIONS[name], **more)
        end = data.index(b"ANMF", data.index(b"ANMF") + 4) if more else len(data)
        kept = int(end * share)
        with pytest.raises(BrokenImage):
            decode(data[:kept] + filling * (len(data) - kept), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("colour", ["black", "white", "grey"])
@pytest.mark.parametrize("options", [{"quality": 100, "method": 0}, {"lossless": True, "quality": 0, "method": 0}])
def test_pixels_that_are_coded_as_zeros_are_whole(options: dict[str, object], colour: str):
    picture = Image.new("RGB", (600, 450), colour)
    picture.paste(cat(600, 100))
    data = encode(picture, "WEBP", **options)
    assert data.endswith(bytes(64))
    assert decode(data, max_pixels=MAX_PIXELS).width == 600
