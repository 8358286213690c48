"""What a photo costs is told from its header: good ones are let through, and each kind of bomb is named in time."""

from __future__ import annotations

import contextlib
import random
import struct
import time

import pytest
from bomb_pictures import (
    DRAWN_HEIC,
    big_tiff_of,
    bmp_runs,
    box,
    gif,
    mpo,
    progressive,
    tiff,
    tiff_of,
    with_frame_size,
    with_scans,
)
from fakes import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import DATA, MAX_PIXELS, animated_webp, cat, png, tiled_tiff
from PIL import Image
from samples import ANIMATIONS, MODES, SAMPLES

from app.errors import BrokenImage, Problem, TooCostly, TooManyPixels, UnsupportedImage
from app.photos import decoding
from app.photos.guards import examine

GOOD = SAMPLES | ANIMATIONS | {name: data for name, (data, _) in MODES.items()}


def seconds(data: bytes) -> float:
    return examine(data, max_pixels=MAX_PIXELS).seconds


def memory(data: bytes) -> int:
    return examine(data, max_pixels=MAX_PIXELS).memory_bytes


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("name", GOOD)
def test_a_photo_has_the_size_that_pillow_says(name: str, wrap: type):
    photo = decoding.decode(GOOD[name], max_pixels=MAX_PIXELS)
    found = examine(memoryview(wrap(GOOD[name])) if wrap is bytearray else wrap(GOOD[name]), max_pixels=MAX_PIXELS)
    turned = photo.orientation >= 5 or name == "TIFF"  # Pillow turns a TIFF itself, and forgets that it did
    size = (photo.height, photo.width) if turned else (photo.width, photo.height)
    assert (found.kind, found.width, found.height) == (photo.format, *size)


@pytest.mark.parametrize("name", GOOD)
def test_a_small_photo_is_estimated_as_cheap(name: str):
    found = examine(GOOD[name], max_pixels=MAX_PIXELS)
    assert found.seconds < 0.05
    assert found.memory_bytes < 32 << 20


@pytest.mark.parametrize("name", GOOD)
def test_the_limit_of_pixels_is_exact(name: str):
    found = examine(GOOD[name], max_pixels=MAX_PIXELS)
    examine(GOOD[name], max_pixels=found.width * found.height)
    with pytest.raises(TooManyPixels):
        examine(GOOD[name], max_pixels=found.width * found.height - 1)


def test_a_rotated_heic_has_its_stored_size():
    found = examine((DATA / "drawn-rotated.heic").read_bytes(), max_pixels=MAX_PIXELS)
    assert (found.width, found.height) == (320, 240)


def test_a_stranger_is_named_as_the_decoder_names_it():
    with pytest.raises(UnsupportedImage, match="This looks like a PDF document, not like a photo"):
        examine(b"%PDF-1.7", max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(("resize", "side"), [(256, 750), (600, 1500), (640, 3000)])
def test_the_estimate_and_the_decoder_follow_the_models_resize(resize: int, side: int):
    data = encode(Image.new("RGB", (3000, 3000)), "JPEG")
    assert decoding.decode(data, max_pixels=MAX_PIXELS, resize=resize).pixels.size == (side, side)
    found, smallest = (examine(data, max_pixels=MAX_PIXELS, resize=each) for each in (resize, 256))
    assert (found.memory_bytes > smallest.memory_bytes) == (side > 750)


LARGE = {
    "JPEG": with_frame_size(SAMPLES["JPEG"], 10_000, 10_000),
    "second frame of a JPEG": SAMPLES["JPEG"].replace(
        b"\xff\xc0", b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 9000, 9000) + b"\x01\x01\x11\x00\xff\xc0", 1
    ),
    "PNG": png((10_000, 10_000), b""),
    "second header of a PNG": png((8, 8), b"", chunks=[(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0))]),
    "GIF screen": gif((10_000, 10_000), (0, 0, 1, 1)),
    "GIF frame": gif((1, 1), (1000, 1000, 9000, 9000)),
    "BMP": bmp_runs(10_000, 10_000),
    "BMP upside down": bmp_runs(10_000, -10_000),
    "WebP canvas": animated_webp(10_000, 10_000),
    "WebP frame": b"RIFF\x00\x00\x00\x00WEBPVP8 " + struct.pack("<I6xHH", 10, 10_000, 10_000),
    "lossless WebP": b"RIFF\x00\x00\x00\x00WEBPVP8L" + struct.pack("<IBI", 5, 0x2F, 9999 | 9999 << 14),
    "TIFF": tiff_of(10_000, 10_000),
    "TIFF tile": tiled_tiff(size=16, tile=8016),
    "TIFF tile as SLONG8": big_tiff_of([(256, 3, 1, 1), (257, 3, 1, 16), (322, 17, 1, 1 << 26), (323, 3, 1, 16)]),
}


@pytest.mark.parametrize("name", LARGE)
def test_too_many_pixels_are_told_from_the_header(name: str):
    with pytest.raises(TooManyPixels, match="more than 64,000,000 pixels"):
        examine(LARGE[name], max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("size", [(1_000_001, 1), (1, 64_000_000)])
def test_a_side_of_millions_is_told_from_the_header(size: tuple[int, int]):
    with pytest.raises(TooManyPixels, match="a side of more than 1,000,000 pixels"):
        examine(png(size, b""), max_pixels=MAX_PIXELS)


def test_each_scan_of_a_jpeg_costs_seconds():
    flat = with_frame_size(progressive(), 8000, 8000)
    assert seconds(flat) < 0.5
    assert 3 < seconds(with_scans(flat, 100)) - seconds(flat) < 8
    with pytest.raises(TooCostly, match="its scans take"):
        examine(with_scans(flat, 2000), max_pixels=MAX_PIXELS)
    assert seconds(with_scans(progressive((64, 48)), 2000)) < 0.05


def test_an_end_inside_a_segment_hides_no_scans():
    flat = with_frame_size(progressive(), 8000, 8000)
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"
    assert seconds(with_scans(flat, 100, before=comment)) >= seconds(with_scans(flat, 100))


def test_scans_of_a_second_jpeg_in_the_file_do_not_count():
    assert seconds(mpo()) < seconds(with_scans(progressive(), 30))


def test_a_jpeg_of_scans_by_the_ten_thousand_is_too_costly():
    with pytest.raises(TooCostly, match="more than 8,192 scans or ends"):
        examine(with_scans(progressive((8, 8)), 8200), max_pixels=MAX_PIXELS)


def test_a_jpeg_of_several_scans_is_held_in_memory_whole():
    flat = encode(cat(2400, 1600), "JPEG", subsampling=0)
    whole = encode(cat(2400, 1600), "JPEG", subsampling=0, progressive=True)
    assert memory(whole) - memory(flat) == 2400 * 1600 * 3 * 2


def test_arithmetic_coding_costs_for_each_block():
    sequential = SAMPLES["JPEG"].replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert seconds(with_frame_size(SAMPLES["JPEG"], 7000, 7000)) < 0.3
    large = with_frame_size(SAMPLES["JPEG"], 7000, 7000).replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert seconds(large) > 0.5
    assert seconds(sequential) < 0.05


@pytest.mark.parametrize(
    "between", [b"\xff\xe1\x00\x02" * 1100, b"\xff" * 100_000, b"\xff\x00" * 50_000], ids=["segments", "fill", "zeros"]
)
def test_a_jpeg_may_not_hide_its_frame_behind_others(between: bytes):
    with pytest.raises((TooCostly, BrokenImage)):
        examine(b"\xff\xd8\xff\xe0\x00\x02" + between + SAMPLES["JPEG"][2:], max_pixels=MAX_PIXELS)


COSTLY = {
    "tiles far larger than the picture": tiff_of(16, 1600, (322, 4, 1, 4_000_000), (323, 4, 1, 16), (324, 4, 100, 8)),
    "offsets by the million": tiff_of(16, 16, (273, 1, 2_000_000, 8)),
    "strips that lie over each other": tiff(
        [(256, 4, 1, 64), (257, 4, 1, 8000), (258, 3, 1, 8), (273, 4, 8000, 200), (278, 3, 1, 1), (279, 4, 8000, 200)],
        struct.pack("<I", 8000) * 8100,
    ),
    "tags that lie over each other": tiff(
        [(256, 3, 1, 16), (257, 3, 1, 16), *((tag, 1, 90_000, 0) for tag in range(700, 740))], bytes(90_000)
    ),
    "a directory of ten thousand": tiff([(256, 3, 1, 9)] * 10_000),
    "chunks before the pixels": png((8, 8), b"", chunks=[(b"tEXt", b"")] * 1100),
    "chunks of a WebP": b"RIFF\x00\x00\x00\x00WEBP" + b"XXXX\x00\x00\x00\x00" * 1100,
    "blocks of a comment": gif((8, 8), (0, 0, 8, 8), b"!\xfe" + b"\x01a" * 21_000 + b"\x00"),
    "extensions": gif((8, 8), (0, 0, 8, 8), b"!\xfe\x00" * 21_000),
    "boxes": DRAWN_HEIC.read_bytes() + box(b"free") * 2600,
}


@pytest.mark.parametrize("name", COSTLY)
def test_an_absurd_shape_is_too_costly(name: str):
    with pytest.raises(TooCostly, match="would take too long"):
        examine(COSTLY[name], max_pixels=MAX_PIXELS)


def test_tiles_that_reach_over_the_edge_are_good():
    tiled = tiff_of(7900, 7900, (322, 3, 1, 512), (323, 3, 1, 512), (324, 4, 256, 8))
    assert examine(tiled, max_pixels=7900 * 7900).width == 7900


@pytest.mark.parametrize("order", ["<", ">"])
def test_all_of_a_tile_counts_for_a_small_tiff(order: str):
    tags = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (322, 4, 1, 8000), (323, 3, 1, 8000)]
    assert seconds(tiff(tags, order=order)) > 0.1
    assert memory(tiff(tags, order=order)) > 64_000_000


def test_runs_of_a_bmp_cost_what_python_takes_for_them():
    assert seconds(bmp_runs(1_000_000, 64, b"\x01\x01" * 5_000_000)) > 2
    assert seconds(bmp_runs(400, 300, b"\x90\x01\x00\x00" * 300)) < 0.05


def test_a_webp_takes_sixteen_bytes_a_pixel():
    data = b"RIFF\x00\x00\x00\x00WEBPVP8L" + struct.pack("<IBI", 5, 0x2F, 7999 | 7999 << 14)
    assert 16 * MAX_PIXELS < memory(data) < 18 * MAX_PIXELS


@pytest.mark.parametrize("name", GOOD)
def test_a_header_cut_anywhere_gives_a_size_or_a_problem(name: str):
    data = GOOD[name]
    for end in range(min(len(data), 700)):
        with contextlib.suppress(Problem):
            examine(data[:end], max_pixels=MAX_PIXELS)


STARTS = [*GOOD.values(), *COSTLY.values(), *LARGE.values()]


@settings(max_examples=400, deadline=500)
@given(start=st.integers(0, len(STARTS) - 1), seed=st.integers(0, 2**32), changes=st.integers(1, 12))
def test_any_damage_gives_an_estimate_or_a_problem_in_time(start: int, seed: int, changes: int):
    chance, data = random.Random(seed), bytearray(STARTS[start])
    for _ in range(changes):
        place = chance.randrange(8, min(len(data), chance.choice([40, 300, 2000])))
        data[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    try:
        found = examine(bytes(data), max_pixels=MAX_PIXELS)
    except Problem:
        return
    assert 0 < found.width * found.height <= MAX_PIXELS
    assert found.memory_bytes > 0
    assert found.seconds > 0


FILLINGS = [b"\x00", b"\xff", b"\xff\x00", b"\xff\xda\x00\x08", b"\xff\xd9", b"\x00\x00\x00\x08free", b"!\xfe\x01a"]


@pytest.mark.parametrize("filling", FILLINGS)
def test_no_file_of_ten_megabytes_takes_long(filling: bytes):
    starts = [*SAMPLES.values(), *(data[: len(data) // 2] for data in SAMPLES.values()), *COSTLY.values()]
    for start in starts:
        data = start + filling * ((10 << 20) // len(filling))
        began = time.thread_time()
        with contextlib.suppress(Problem):
            examine(data, max_pixels=MAX_PIXELS)
        # A few milliseconds on an idle processor, more where coverage is measured; unbounded work takes seconds.
        assert time.thread_time() - began < 0.5
