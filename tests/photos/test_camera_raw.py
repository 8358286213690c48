"""A camera's raw file is named as one, however it begins, and never answered from its preview."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fakes import encode
from pictures import MAX_PIXELS, cat

from app.errors import UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine

SENTENCE = (
    "This is a camera's raw file, not a finished photo. Export it as JPEG, in the camera or with a raw converter, "
    "and send that."
)
PREVIEW = np.asarray(cat(60, 40))
LINEAR = 34892
SENSOR = np.zeros((80, 120), np.uint16)
MAKER = (271, 2, 6, "MAKER", True)
Tags = Sequence[tuple[object, ...]]


def raw(tmp_path: Path, *, preview_tags: Tags = (), subfile: int = 0, **options: object) -> bytes:
    """Write a TIFF whose first picture is a small preview, and the sensor's below it."""
    path = tmp_path / "photo.tif"
    sensor = np.repeat(SENSOR[..., None], 3, axis=2) if options.get("photometric") == LINEAR else SENSOR
    with tifffile.TiffWriter(path) as file:
        tags = {"extratags": preview_tags, "metadata": None}
        file.write(PREVIEW, photometric="rgb", subifds=1, subfiletype=subfile, **tags)
        file.write(sensor, **({"photometric": "cfa", "metadata": None} | options))
    return path.read_bytes()


def refuse(data: bytes) -> None:
    for read in (decode, examine):
        with pytest.raises(UnsupportedImage) as refusal:
            read(data, max_pixels=MAX_PIXELS)
        assert refusal.value.detail == SENTENCE


@pytest.mark.parametrize("photometric", [32803, LINEAR])
def test_a_sensor_s_picture_below_a_preview_is_found(tmp_path: Path, photometric: int):
    refuse(raw(tmp_path, photometric=photometric))


@pytest.mark.parametrize("compression", [32767, 34713, 65535])
def test_a_maker_s_own_compression_below_a_preview_is_found(tmp_path: Path, compression: int):
    data = raw(tmp_path, photometric="minisblack")
    entry = struct.pack("<HHI", 259, 3, 1)
    place = data.rindex(entry) + len(entry)
    refuse(data[:place] + struct.pack("<H", compression) + data[place + 2 :])


def test_dng_is_known_by_its_version(tmp_path: Path):
    refuse(raw(tmp_path, preview_tags=[(50706, 1, 4, (1, 4, 0, 0), True)], photometric="minisblack"))


def test_a_reduced_first_picture_of_a_camera_is_its_preview(tmp_path: Path):
    refuse(raw(tmp_path, preview_tags=[MAKER], subfile=1, photometric="minisblack"))


def test_other_pictures_below_a_photo_are_no_raw_file(tmp_path: Path):
    photo = decode(raw(tmp_path, preview_tags=[MAKER], photometric="minisblack"), max_pixels=MAX_PIXELS)
    assert (photo.thumbnail(60) == PREVIEW).all()


def test_directories_in_a_circle_are_read_once():
    data = encode(cat(60, 40), "TIFF")
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    circle = data[:end] + data[4:8] + data[end + 4 :]
    assert decode(circle, max_pixels=MAX_PIXELS).width == 60


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + struct.pack("<HHHIIHHII", 2, 256, 4, 1, 9, 257, 4, 1, 9) + bytes(4),
        b"II*\0\x10\0\0\0IIII\0waR" + struct.pack("<HHHIIHHII", 2, 256, 4, 1, 9, 257, 4, 1, 9) + bytes(4),
        b"II\x1a\0\0\0HEAPCCDR",
        b"IIU\0\x18\0\0\0",
        b"IIRO\x08\0\0\0",
        b"IIRS\x08\0\0\0",
        b"MMOR\0\0\0\x08",
        b"FUJIFILMCCD-RAW 0201",
        b"FOVb\0\0\2\0",
        b"\0MRM\0\0\1\0",
    ],
    ids=["CR3", "CR2", "IIQ", "CRW", "RW2", "ORF", "ORF of 2003", "ORF big-endian", "RAF", "X3F", "MRW"],
)
def test_what_begins_like_a_raw_file_is_one(head: bytes):
    refuse(head + bytes(300))
