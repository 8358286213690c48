"""The crops of a few photos: in the order of their files, or one sentence about the first that has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import colour_png

from app.photos.crops import read_crops
from app.photos.decoding import Geometry
from app.photos.folders import FileProblem


def test_crops_are_in_the_order_of_the_files(tmp_path: Path) -> None:
    for name, colour in (("b.png", (255, 0, 0)), ("a.png", (0, 255, 0))):
        (tmp_path / name).write_bytes(colour_png(*colour))
    crops = read_crops([str(tmp_path / name) for name in ("b.png", "a.png")], Geometry(), max_pixels=10**7)
    assert [crop.shape for crop in crops] == [(224, 224, 3)] * 2
    assert [crop[0, 0].tolist() for crop in crops] == [[255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("bad.jpg", "This JPEG file is damaged"), ("missing.jpg", "The file cannot be read: No such file")],
)
def test_photo_without_a_crop_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(FileProblem, match=rf"{name} cannot be used: {reason}"):
        read_crops([str(tmp_path / name)], Geometry(), max_pixels=10**7)
