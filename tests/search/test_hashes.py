"""The perceptual hash: near for copies of a photo, far for other photos."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import skimage.data
from fakes import encode
from PIL import Image

from app.photos.decoding import decode
from app.search.hashes import perceptual_hash
from app.search.indexing import THUMBNAIL_SIDE

PHOTOS = {name: Image.fromarray(getattr(skimage.data, name)()) for name in ("chelsea", "coffee", "rocket")}


def hash_of(data: bytes) -> int:
    return perceptual_hash(decode(data, max_pixels=10**7).thumbnail(THUMBNAIL_SIDE))


@pytest.mark.parametrize("name", PHOTOS)
def test_copies_have_nearly_the_same_hash(name: str) -> None:
    photo = PHOTOS[name]
    original = hash_of(encode(photo))
    copies = [
        encode(photo, "JPEG", quality=30),
        encode(photo.reduce(2), "WEBP"),
        encode(photo.resize((photo.width * 2, photo.height * 2)), "JPEG"),
        encode(photo.convert("L")),
    ]
    assert max((hash_of(copy) ^ original).bit_count() for copy in copies) <= 6
    others = [hash_of(encode(other)) for key, other in PHOTOS.items() if key != name]
    assert min((other ^ original).bit_count() for other in others) >= 20


def test_the_hash_is_that_of_the_cosine_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    frequencies = scipy.fft.dctn(pixels @ np.array([0.299, 0.587, 0.114]), norm="ortho")[1:9, 1:9].ravel()
    bits = (frequencies > np.median(frequencies)).astype(int)
    assert f"{perceptual_hash(pixels):064b}" == "".join(map(str, bits))


@pytest.mark.parametrize("shape", [(1, 1, 3), (96, 1, 3), (2, 96, 3), (31, 33, 3)])
def test_any_size_has_a_hash_and_one_colour_has_none(shape: tuple[int, ...]) -> None:
    assert perceptual_hash(np.full(shape, 77, np.uint8)) == 0
