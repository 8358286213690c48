"""Damaged, enormous and malicious files give a photo or a problem, soon, and nothing else."""

from __future__ import annotations

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes import encode
from pictures import (
    BILINEAR,
    MAX_PIXELS,
    animated_webp,
    crop_of,
    crop_of_picture,
    png,
    repair_checksums,
    tiled_tiff,
)
from PIL import Image
from samples import ANIMATIONS, SAMPLES, SMALL

from app.errors import BrokenImage, Problem, TooManyPixels
from app.photos.decoding import decode


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_short_is_broken(name: str, tenth: int):
    data = SAMPLES[name]
    with pytest.raises(BrokenImage, match="is damaged or incomplete"):
        decode(data[: len(data) * tenth // 10], max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("name", SAMPLES | ANIMATIONS)
def test_random_damage_gives_a_photo_or_a_problem(name: str):
    chance = np.random.default_rng(2)
    original = (SAMPLES | ANIMATIONS)[name]
    met = set()
    for _ in range(200):
        data = damaged(original, chance)
        try:
            photo = decode(repair_checksums(data) if "PNG" in name else data, max_pixels=1_000_000)
        except Problem as problem:
            met.add(type(problem))
            continue
        assert photo.crop(BILINEAR).shape == (224, 224, 3)
        assert photo.thumbnail(64).shape[2] == 3
    assert BrokenImage in met


def damaged(data: bytes, chance: np.random.Generator) -> bytes:
    """Overwrite some bytes, half of the time in the first 200, where headers are, and at times take some out."""
    changed = bytearray(data)
    reach = len(data) if chance.random() < 0.5 else min(200, len(data))
    for place in chance.integers(reach, size=chance.integers(1, 6)):
        changed[place] = chance.choice([0, 1, 255, chance.integers(256)])
    if chance.random() < 0.2:
        start = chance.integers(len(data))
        del changed[start : start + 5]
    return bytes(changed)


@pytest.mark.parametrize(
    "data",
    [
        png((31_623, 31_623), b""),
        png((10_000, 10_000), b""),
        png((2**31 - 1, 2**31 - 1), b""),
        png((16_384, 16_384), b"\x00" * 2049 * 16_384, depth=1),
        b"GIF89a" + b"\xff" * 4 + bytes(3) + b"\x2c" + bytes(4) + b"\xff" * 4 + bytes(3),
        b"BM" + bytes(8) + b"\x1a\x00\x00\x00\x0c\x00\x00\x00\x10\x27\x10\x27\x01\x00\x18\x00",
        animated_webp(10_000, 10_000),
        animated_webp(65_535, 65_535),
        tiled_tiff(size=10_000, tile=16),
    ],
    ids=["gigapixel", "100 megapixels", "largest", "real pixels", "GIF", "BMP", "WebP", "largest WebP", "TIFF"],
)
def test_too_many_pixels_are_refused_by_the_header(data: bytes):
    with pytest.raises(TooManyPixels) as refusal:
        decode(data, max_pixels=MAX_PIXELS)
    assert refusal.value.detail == "The photo has more than 64,000,000 pixels. Send a smaller copy."


def test_a_jpeg_of_100_megapixels_is_refused_by_the_header():
    data = bytearray(encode(SMALL, "JPEG"))
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = (10_000).to_bytes(2, "big") * 2
    with pytest.raises(TooManyPixels):
        decode(bytes(data), max_pixels=MAX_PIXELS)


def test_a_small_tiff_may_not_hold_an_enormous_tile():
    assert decode(tiled_tiff(size=16, tile=1024), max_pixels=1024**2).width == 16
    with pytest.raises(TooManyPixels):
        decode(tiled_tiff(size=16, tile=1040), max_pixels=1024**2)


@pytest.mark.parametrize("size", [(1_000_001, 1), (1, 64_000_000)])
def test_a_side_of_millions_of_pixels_is_refused_by_the_header(size: tuple[int, int]):
    with pytest.raises(TooManyPixels, match="a side of more than 1,000,000 pixels"):
        decode(png(size, b""), max_pixels=MAX_PIXELS)


def test_the_limit_is_exact():
    data = encode(Image.new("L", (20, 30)))
    assert decode(data, max_pixels=600).width == 20
    with pytest.raises(TooManyPixels):
        decode(data, max_pixels=599)


def exif_of_one(tag: int, kind: int, count: int, value: int, following: int = 0) -> bytes:
    """Write EXIF data of one directory with one entry, as wrong as one likes."""
    return b"Exif\x00\x00II*\x00" + struct.pack("<IHHHIII", 8, 1, tag, kind, count, value, following)


BAD_EXIF = {
    "garbage": b"Exif\x00\x00garbage",
    "empty": b"Exif\x00\x00",
    "no directory": b"Exif\x00\x00II*\x00\xff\xff\xff\x7f",
    "cut short": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x05\x01\x12",
    "endless count": exif_of_one(0x0112, kind=3, count=2**32 - 1, value=8),
    "orientation is text": exif_of_one(0x0112, kind=2, count=2, value=0x36),
    "orientation of no type": exif_of_one(0x0112, kind=99, count=1, value=6),
    "directory in itself": exif_of_one(0x8769, kind=4, count=1, value=8, following=8),
}


@pytest.mark.parametrize("exif", BAD_EXIF.values(), ids=BAD_EXIF)
@pytest.mark.parametrize("encoder", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_cost_the_photo(encoder: str, exif: bytes):
    data = encode(SMALL, encoder, exif=exif, quality=95)
    assert np.abs(crop_of(data) - crop_of_picture(SMALL)).mean() < 5


@pytest.mark.parametrize("profile", [b"garbage", b"\x00" * 128, b"\xff" * 5000])
@pytest.mark.parametrize("encoder", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_broken_colour_profile_does_not_cost_the_photo(encoder: str, profile: bytes):
    data = encode(SMALL, encoder, icc_profile=profile, quality=95)
    photo = decode(data, max_pixels=MAX_PIXELS)
    assert np.abs(photo.crop(BILINEAR) - crop_of_picture(SMALL)).mean() < 5
    assert photo.thumbnail(64).shape[2] == 3


def test_a_profile_that_cannot_be_unpacked_is_ignored():
    assert not crop_of(png((1, 1), b"\x00\x00", chunks=[(b"iCCP", b"name\x00\x00not deflated")])).any()


def test_threads_do_not_disturb_each_other():
    files = list((SAMPLES | ANIMATIONS).values())
    alone = [crop_of(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: crop_of(data).tobytes(), files * 4))
    assert together == alone * 4


MEASURE_MEMORY = """
import resource, sys
from app.photos.decoding import Geometry, decode

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

data = sys.stdin.buffer.read()
before = peak_bytes()
photo = decode(data, max_pixels=64_000_000)
photo.crop(Geometry())
photo.thumbnail(640)
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_40_megapixels_take_little_more_than_their_decoded_size(mode: str):
    data = encode(Image.new(mode, (8000, 5000), 7), compress_level=1)
    done = subprocess.run([sys.executable, "-c", MEASURE_MEMORY], input=data, capture_output=True, check=True)
    decoded_bytes = 40_000_000 * {"RGBA": 4, "P": 1, "I;16": 2}[mode]
    assert int(done.stdout) < 1.5 * decoded_bytes + 8_000_000
