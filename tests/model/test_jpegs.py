"""JPEG files that torchvision decodes have the crops that the decoders make of them; here both compute on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from app.model import KNOWN_PHOTO
from app.model.engines.jpegs import Jpeg, compare, decode_crops, sample_files, smooth_chroma
from app.photos.decoding import Geometry, decode
from app.photos.device_jpegs import chroma_factors, device_orientation, without_metadata
from app.photos.formats import format_of
from app.photos.guards import examine

# torchvision deprecates it in favour of torchcodec, whose decoder on the CPU is another one.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding")

GEOMETRY = Geometry()


@pytest.fixture(scope="module")
def files() -> list[Jpeg]:
    return sample_files(KNOWN_PHOTO.read_bytes())


def test_crops_are_those_of_the_decoders(files: list[Jpeg]) -> None:
    bare = [Jpeg(without_metadata(each.data), each.orientation) for each in files]
    found = decode_crops(bare, GEOMETRY, "cpu").numpy().astype(int)
    expected = np.stack([decode(each.data, max_pixels=10**7).crop(GEOMETRY) for each in files])
    assert np.abs(found - expected).max() <= 3
    assert np.abs(found - expected).mean() < 0.1


def test_every_sample_is_one_that_a_device_decodes(files: list[Jpeg]) -> None:
    found = [
        device_orientation(each.data, format_of(each.data), examine(each.data, max_pixels=10**7)) for each in files
    ]
    assert found == [each.orientation for each in files]
    assert {chroma_factors(each.data) for each in files} == {(1, 1), (1, 2), (2, 2)}


@pytest.mark.parametrize(("shift", "is_enough"), [(0.0, True), (1.0, False)])
def test_answers_that_are_too_far_apart_are_not_enough(files: list[Jpeg], shift: float, is_enough: bool) -> None:
    calls: list[int] = []

    def compute(crops: np.ndarray) -> np.ndarray:
        calls.append(len(crops))
        scores = np.stack([crops.mean(axis=(1, 2, 3)) / 255, np.zeros(len(crops))], axis=1)
        return (scores + [shift * (len(calls) - 1), 0]).astype(np.float32)

    assert compare(files[:4], GEOMETRY, "cpu", compute).is_enough == is_enough


@pytest.mark.parametrize("factors", [(1, 2), (2, 2)])
def test_repeated_colours_become_interpolated_ones(factors: tuple[int, int]) -> None:
    height, width = 32, 46
    draw = torch.Generator().manual_seed(0)
    luma = torch.rand((1, height, width), generator=draw) * 100 + 80
    samples = (torch.rand((1, 2, height // factors[0], width // factors[1]), generator=draw) - 0.5) * 60

    def picture(mode: str, **options: object) -> torch.Tensor:
        blue, red = functional.interpolate(samples, scale_factor=factors, mode=mode, **options).unbind(1)
        blue, red = luma + blue, luma + red
        return torch.stack([red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue], dim=1)

    found = smooth_chroma(picture("nearest"), factors)
    assert (found - picture("bilinear", align_corners=False)).abs().max() < 1e-3
