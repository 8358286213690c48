"""AVIF and HEIC: metadata is hidden from HEIC's decoder, nothing else changes, and AVIF takes no thread."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import pillow_heif
import pytest
from fakes import encode
from packaging.version import Version
from pictures import BILINEAR, MAX_PIXELS, cat, filled
from PIL import Image
from samples import SAMPLES

from app.errors import BrokenImage, UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine
from app.photos.heif import without_metadata

DATA = Path(__file__).parent.parent / "data"
PIXELS = b"....cdsc...."
# What was published of older ones is in docs/dependencies.md.
MIN_LIBHEIF, MIN_LIBDE265 = Version("1.23.6"), Version("1.1.3")


def box(kind: bytes, body: bytes) -> bytes:
    """Write a box with its size."""
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def large_box(kind: bytes, body: bytes) -> bytes:
    """Write a box whose size takes eight bytes."""
    return (1).to_bytes(4, "big") + kind + (16 + len(body)).to_bytes(8, "big") + body


def full_box(kind: bytes, body: bytes, version: int = 0) -> bytes:
    """Write a box with its size, its version and no flags."""
    return box(kind, struct.pack(">I", version << 24) + body)


def with_descriptions(copies: int, size: int) -> bytes:
    """Write a HEIC whose one image has `copies` pieces of metadata, all of them the same `size` bytes of the file."""
    photo = (DATA / "drawn.heic").read_bytes()
    brands, handler, pixels = photo[:28], photo[40:73], photo[378:]
    primary_and_properties = photo[142:370]
    items = range(2, 2 + copies)

    def entry(number: int, kind: bytes) -> bytes:
        return full_box(b"infe", struct.pack(">HH4s", number, 0, kind) + b"\0", version=2)

    def meta(start: int) -> bytes:
        places = struct.pack(">HHHII", 1, 0, 1, start, len(pixels))
        places += b"".join(struct.pack(">HHHII", item, 0, 1, start + len(pixels), size) for item in items)
        count = struct.pack(">H", 1 + copies)
        names = entry(1, b"hvc1") + b"".join(entry(item, b"Note") for item in items)
        references = b"".join(box(b"cdsc", struct.pack(">HHH", item, 1, 1)) for item in items)
        listed = full_box(b"iloc", b"\x44\0" + count + places) + full_box(b"iinf", count + names)
        return full_box(b"meta", handler + listed + primary_and_properties + full_box(b"iref", references))

    start = len(brands) + len(meta(0)) + 8
    return brands + meta(start) + box(b"mdat", pixels + bytes(size))


META = box(b"meta", b"..cdsc..")
HIDDEN = box(b"meta", b"..free..")


@pytest.mark.parametrize(
    "pixels",
    [
        box(b"mdat", PIXELS),
        large_box(b"mdat", PIXELS),
        (0).to_bytes(4, "big") + b"mdat" + PIXELS,  # to the end of the file
    ],
    ids=["short", "large", "open"],
)
def test_pixels_stay_as_they_are(pixels: bytes) -> None:
    assert without_metadata(META + pixels) == HIDDEN + pixels


@pytest.mark.parametrize("size", [2, 7, 10_000])
def test_after_an_invalid_size_nothing_counts_as_pixels(size: int) -> None:
    broken = size.to_bytes(4, "big") + b"mdat" + PIXELS
    assert b"cdsc" not in without_metadata(META + broken + META)


@pytest.mark.parametrize("data", [b"", b"abc", b"\0\0\0\1mdat", b"\0\0\0\1mdatcdsc"])
def test_stubs_do_no_harm(data: bytes) -> None:
    assert len(without_metadata(data)) == len(data)


def test_a_real_photo_loses_its_reference_alone() -> None:
    photo = (DATA / "drawn-rotated.heic").read_bytes()
    hidden = without_metadata(photo)
    assert photo.count(b"cdsc") == 1
    assert [photo[i : i + 1] for i in range(len(photo)) if photo[i] != hidden[i]] == [b"c", b"d", b"s", b"c"]


def test_a_photo_without_metadata_is_not_copied() -> None:
    photo = (DATA / "drawn.heic").read_bytes()
    assert without_metadata(photo) is photo


def test_metadata_is_not_copied_for_each_time_it_is_named() -> None:
    data = with_descriptions(copies=20, size=1000)
    named = Image.open(io.BytesIO(data)).info["metadata"]
    hidden = Image.open(io.BytesIO(without_metadata(data)))
    assert [len(item["data"]) for item in named] == [1000] * 20
    assert (hidden.info["metadata"], hidden.size) == ([], (320, 240))
    hidden.load()


def test_a_content_type_that_is_no_text_does_no_harm() -> None:
    found = next((DATA / "fuzz").glob("crash-933f2e4d*")).read_bytes()
    assert Image.open(io.BytesIO(found)).size == (240, 320)


def test_the_library_is_one_without_the_published_flaws() -> None:
    named = pillow_heif.libheif_version(), pillow_heif.libheif_info()["decoders"]["libde265"].split(" ")[-1]
    libheif, libde265 = (Version(number) for number in named)
    assert libheif >= MIN_LIBHEIF
    assert libde265 >= MIN_LIBDE265


# Decodes the photo on its standard input where no thread can be started: nobody but root may exceed the limit.
ALONE = """
import io, os, resource, sys
from PIL import Image, AvifImagePlugin
import app.photos.heif
AvifImagePlugin.DEFAULT_MAX_THREADS = int(sys.argv[1]) or AvifImagePlugin.DEFAULT_MAX_THREADS
data = sys.stdin.buffer.read()
if os.getuid() == 0:
    os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
image = Image.open(io.BytesIO(data))
image.load()
print(*image.size)
"""


@pytest.mark.parametrize(("threads", "size"), [(0, "800 600"), (2, "")], ids=["as set", "two"])
def test_an_avif_is_decoded_without_another_thread(threads: int, size: str) -> None:
    photo = io.BytesIO()
    cat(800, 600).save(photo, "AVIF", tile_rows=1, tile_cols=1)
    command = [sys.executable, "-c", ALONE, str(threads)]
    done = subprocess.run(command, input=photo.getvalue(), capture_output=True, check=False)
    assert done.stdout.decode().strip() == size, done.stderr.decode()


@pytest.mark.parametrize("brand", [b"miaf", b"MiHE", b"mif2", b"jpeg", b"tmap"])
@pytest.mark.parametrize("name", ["AVIF", "HEIC"])
def test_the_main_brand_may_be_any(name: str, brand: bytes):
    data = SAMPLES[name]
    photo = decode(data[:8] + brand + data[12:], max_pixels=MAX_PIXELS)
    same = decode(data, max_pixels=MAX_PIXELS)
    assert photo.format == name
    assert (photo.crop(BILINEAR) == same.crop(BILINEAR)).all()


@pytest.mark.parametrize(("name", "brand"), [("AVIF", b"heic"), ("HEIC", b"avif")])
def test_the_coding_counts_where_the_brands_are_the_others(name: str, brand: bytes):
    data = SAMPLES[name]
    end = int.from_bytes(data[:4], "big")
    brands = brand + data[12:16] + brand * ((end - 16) // 4)
    photo = decode(data[:8] + brands + data[end:], max_pixels=MAX_PIXELS)
    assert photo.format == name
    assert (photo.crop(BILINEAR) == decode(data, max_pixels=MAX_PIXELS).crop(BILINEAR)).all()


@pytest.mark.parametrize("brands", [b"mp42isommp41", b"qt  qt  mp42", b"isomiso2avc1"])
def test_videos_are_no_photos(brands: bytes):
    with pytest.raises(UnsupportedImage, match="looks like a video"):
        decode(b"\0\0\0\x18ftyp" + brands[:4] + bytes(4) + brands[4:] + bytes(400), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("name", ["AVIF", "HEIC"])
def test_a_file_that_ends_before_its_pixels_is_damaged(name: str):
    with pytest.raises(BrokenImage):
        examine(SAMPLES[name][:-1], max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_a_heic_that_ends_in_filling_is_damaged(filling: bytes):
    data = encode(cat(), "HEIF", quality=90)
    assert decode(data, max_pixels=MAX_PIXELS).width == 451
    with pytest.raises(BrokenImage):
        decode(filled(data, 0.5, filling), max_pixels=MAX_PIXELS)


def test_broken_metadata_of_an_avif_never_costs_the_photo():
    exif = b"Exif\0\0II*\0" + bytes(100)
    data = encode(cat(), "AVIF", quality=90, exif=exif)
    whole = decode(data, max_pixels=MAX_PIXELS).thumbnail(451)
    # An item of EXIF data begins with the offset of its TIFF header, here one that leads beyond the end.
    start = data.index(exif[6:]) - 4
    broken = data[:start] + b"\xff" * 8 + data[start + 8 :]
    assert (decode(broken, max_pixels=MAX_PIXELS).thumbnail(451) == whole).all()
