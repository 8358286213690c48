"""One row declares a format, and everything else about formats follows from the table."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from fakes import encode
from flask.testing import FlaskClient
from pictures import BILINEAR, MAX_PIXELS, cat, crop_of_picture
from samples import ANIMATIONS, SAMPLES

from app.errors import BrokenImage, TooManyPixels
from app.photos.costs import Cost
from app.photos.decoding import decode
from app.photos.formats import ACCEPT, FORMATS, HEAD_BYTES, NAMES, SUPPORTED, Format, format_of
from app.photos.guards import examine

PPM = Format("PPM", r"P6\s", (".ppm",), "image/x-portable-pixmap", cost=Cost(10.0, 5.0))


@pytest.mark.parametrize("name", SAMPLES | ANIMATIONS)
def test_each_sample_has_one_format(name: str):
    head = (SAMPLES | ANIMATIONS)[name][:HEAD_BYTES]
    found = [row.name for row in FORMATS if row.matches(head)]
    assert found == (["AVIF", "HEIC"] if name == "AVIF" else [format_of((SAMPLES | ANIMATIONS)[name]).name])


def test_every_format_has_a_sample():
    assert {format_of(data).name for data in SAMPLES.values()} == set(NAMES)


def test_no_suffix_belongs_to_two_formats():
    counts = Counter(suffix for row in FORMATS for suffix in row.suffixes)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_signatures_are_written_for_python_and_javascript(row: Format):
    assert row.signature.isascii()
    # What only one of the two reads: named groups, lookbehind, flags inside, anchors of the whole text.
    assert not re.search(r"\(\?[^:]|\\[AZz]", row.signature)


@pytest.mark.parametrize(("brands", "name"), [(b"avifmif1", "AVIF"), (b"mif1avif", "AVIF"), (b"mif1miaf", "HEIC")])
def test_of_two_brands_avif_counts(brands: bytes, name: str):
    assert format_of(b"\x00\x00\x00\x1cftyp" + brands[:4] + bytes(4) + brands).name == name


def test_the_page_gets_its_formats_from_the_table(client: FlaskClient):
    page = client.get("/", headers={"Accept-Language": "en"}).text
    assert f"{SUPPORTED}, up to" in page
    assert f'accept="{ACCEPT}"' in page
    assert all(f"&#34;{row.mime_type}&#34;" in page for row in FORMATS)


def test_new_formats_are_chosen_by_their_suffixes_too():
    assert {".avif", ".heic"} < set(ACCEPT.split(","))
    assert ".jpg" not in ACCEPT.split(",")


def test_a_new_format_is_one_row():
    data = encode(cat(90, 60), "PPM")
    found = examine(data, max_pixels=MAX_PIXELS, photo_format=PPM)
    assert (found.kind, found.width, found.height) == ("PPM", 90, 60)
    assert found.memory_bytes > 90 * 60 * 5
    photo = decode(data, max_pixels=MAX_PIXELS, photo_format=PPM)
    assert photo.format == "PPM"
    assert (photo.crop(BILINEAR) == crop_of_picture(cat(90, 60))).all()


def test_a_new_format_is_guarded_by_its_size():
    with pytest.raises(TooManyPixels):
        examine(b"P6 9000 9000 255 ", max_pixels=MAX_PIXELS, photo_format=PPM)
    with pytest.raises(BrokenImage):
        examine(b"P6 nonsense", max_pixels=MAX_PIXELS, photo_format=PPM)
