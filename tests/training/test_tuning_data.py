"""Pictures for tuning: the crop that serves is in the middle of the square that is kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from fakes import encode
from pictures import MAX_PIXELS, cat

from app.model.records import RECORDS
from app.photos.decoding import Geometry, decode
from app.training.tuning_data import Crops, mapped, square_of, views_within


@pytest.mark.parametrize(
    "geometry",
    [Geometry(256, 224), Geometry(255, 240), Geometry(288, 288, "bicubic"), Geometry(700, 600, "bicubic")],
)
@pytest.mark.parametrize("size", [(451, 300), (301, 452)])
def test_tuning_sees_the_crop_that_serves(geometry: Geometry, size: tuple[int, int]) -> None:
    photo = decode(encode(cat(*size)), max_pixels=MAX_PIXELS, resize=geometry.resize)
    square = photo.crop(square_of(dataclasses.replace(RECORDS["resnet18"], geometry=geometry)))
    crops = Crops(square[None], geometry.crop, geometry.interpolation == "bicubic", has_flip=True)
    found, served = crops.centre([0])[0].numpy(), photo.crop(geometry)
    assert np.abs(found.astype(int) - served).max() <= 1
    assert np.array_equal(crops.centre([0], mirrored=True)[0].numpy(), found[:, ::-1])


def test_a_mapped_file_that_was_cut_is_filled_again(tmp_path: Path) -> None:
    for length in (6, 0, 5, 7):
        if length != 6:
            os.truncate(tmp_path / "squares", length)
        rows = mapped(tmp_path / "squares", (2, 3), np.uint8, lambda rows: rows.fill(7))
        assert rows.tolist() == [[7] * 3] * 2


@pytest.mark.parametrize(("photos", "views"), [(3_000, 4), (8_000, 2), (200_000, 0)])
def test_feature_maps_stay_within_their_limit(photos: int, views: int) -> None:
    assert views_within(photos, 100_352) == views
