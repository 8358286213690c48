"""HEIC: metadata is hidden from its decoder, and nothing else of the file changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.heif import without_metadata

DATA = Path(__file__).parent / "data"
PIXELS = b"....cdsc...."


def box(kind: bytes, body: bytes) -> bytes:
    """Write a box with its size."""
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def large_box(kind: bytes, body: bytes) -> bytes:
    """Write a box whose size takes eight bytes."""
    return (1).to_bytes(4, "big") + kind + (16 + len(body)).to_bytes(8, "big") + body


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
def test_behind_a_size_that_makes_no_sense_nothing_passes_for_pixels(size: int) -> None:
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
