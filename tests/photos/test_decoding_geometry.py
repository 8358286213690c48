"""The crop is the one that torchvision's own transforms make, of the upright photo, whatever its size and shape."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from fakes import encode
from pictures import BICUBIC, BILINEAR, MAX_PIXELS, cat, crop_of, crop_of_picture, png
from PIL import Image, ImageOps

from app.photos.decoding import Geometry, decode

PHOTOS = {
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
    "astronaut": skimage.data.astronaut,
    "moon": skimage.data.moon,
    "galaxies": skimage.data.hubble_deep_field,
    "retina": skimage.data.retina,
    "tissue": skimage.data.immunohistochemistry,
}
# Around the sizes of the model, odd and even, long and wide, smaller than the crop and larger.
SIZES = [
    (256, 256),
    (224, 224),
    (257, 255),
    (255, 511),
    (301, 223),
    (97, 131),
    (10, 37),
    (640, 427),
    (1001, 333),
    (99, 700),
]
# EXIF orientations that turn by a quarter are 5 to 8.
ORIENTATIONS = range(1, 9)


def torchvision_crop(picture: Image.Image, geometry: Geometry) -> np.ndarray:
    """Make the crop with torchvision's own transforms, on the picture as Pillow decodes it."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    mode = InterpolationMode(geometry.interpolation)
    transforms = Compose([Resize(geometry.resize, mode, antialias=True), CenterCrop(geometry.crop)])
    return np.asarray(transforms(picture.convert("RGB"))).astype(np.int16)


def assert_close_to_torchvision(crop: np.ndarray, picture: Image.Image) -> None:
    """Assert what a JPEG decoded at reduced scale must keep to."""
    error = np.abs(crop - torchvision_crop(picture, BILINEAR))
    assert error.max() <= 6
    assert error.mean() <= 0.3


def with_orientation(orientation: int) -> Image.Exif:
    """Make EXIF data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def opened(data: bytes) -> Image.Image:
    """Open a file as Pillow does, without our code."""
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("geometry", [BILINEAR, BICUBIC], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("load", PHOTOS.values(), ids=PHOTOS)
def test_real_photos_are_cropped_as_torchvision_does(load: Callable[[], np.ndarray], geometry: Geometry):
    photo = Image.fromarray(load())
    assert np.abs(crop_of_picture(photo, geometry) - torchvision_crop(photo, geometry)).max() <= 1


# Bicubic weights below zero let a rounding in the first pass count for more: a few values in 150,000 are off by 2.
@pytest.mark.parametrize(("geometry", "most"), [(BILINEAR, 1), (BICUBIC, 2)], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_cropped_as_torchvision_does(size: tuple[int, int], geometry: Geometry, most: int):
    photo = cat(*size)
    error = np.abs(crop_of_picture(photo, geometry) - torchvision_crop(photo, geometry))
    assert error.max() <= most
    assert (error > 1).mean() < 1e-4


def test_a_jpeg_decoded_whole_is_cropped_as_torchvision_does(real_photos: dict[str, bytes]):
    for data in real_photos.values():
        assert decode(data, max_pixels=MAX_PIXELS).pixels.size == opened(data).size
        assert np.abs(crop_of(data) - torchvision_crop(opened(data), BILINEAR)).max() <= 1


@pytest.mark.parametrize("shorter_side", [1281, 2571])
@pytest.mark.parametrize("name", ["cat", "coffee", "rocket", "astronaut", "tissue"])
def test_a_jpeg_decoded_small_stays_close_to_torchvision(name: str, shorter_side: int):
    photo = Image.fromarray(PHOTOS[name]())
    photo = ImageOps.scale(photo, shorter_side / min(photo.size), Image.Resampling.LANCZOS)
    data = encode(photo, "JPEG", quality=90)
    assert decode(data, max_pixels=MAX_PIXELS).pixels.width < photo.width
    assert_close_to_torchvision(crop_of(data), opened(data))


@pytest.mark.parametrize("size", [(1279, 1500), (1280, 1030), (2559, 3000), (2560, 2561), (5119, 5121), (5200, 5120)])
def test_a_jpeg_is_never_decoded_below_twice_the_resize(size: tuple[int, int]):
    photo = decode(encode(Image.new("L", size), "JPEG"), max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == size
    assert 512 <= min(photo.pixels.size) <= 1280


@pytest.mark.parametrize("size", [(301, 223), (224, 401)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("encoder", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_photo_is_turned_upright(encoder: str, orientation: int, size: tuple[int, int]):
    options = {"speed": 10} if encoder == "AVIF" else {}
    data = encode(cat(*size), encoder, exif=with_orientation(orientation), **options)
    upright = ImageOps.exif_transpose(opened(data))
    photo = decode(data, max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == upright.size == (size if orientation < 5 else size[::-1])
    assert np.abs(photo.crop(BILINEAR) - crop_of_picture(upright)).max() <= 1


@pytest.mark.parametrize("size", [(2401, 1303), (1301, 2407)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_jpeg_decoded_small_is_turned_upright(orientation: int, size: tuple[int, int]):
    photo = Image.fromarray(skimage.data.coffee()).resize(size, Image.Resampling.LANCZOS)
    data = encode(photo, "JPEG", exif=with_orientation(orientation))
    assert decode(data, max_pixels=MAX_PIXELS).pixels.width < size[0]
    assert_close_to_torchvision(crop_of(data), ImageOps.exif_transpose(opened(data)))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int):
    photo = decode(encode(cat(), "JPEG", exif=with_orientation(orientation)), max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == (451, 300)


@pytest.mark.parametrize("geometry", [BILINEAR, BICUBIC], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "YCbCr"])
def test_conversion_tile_by_tile_leaves_no_seam(mode: str, geometry: Geometry):
    photo = cat(907, 611).convert(mode)
    data = encode(photo, "TIFF")
    assert np.abs(crop_of(data, geometry) - torchvision_crop(photo, geometry)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 10_000), (10_000, 1), (3, 65_537), (65_535, 2)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16"])
def test_the_thinnest_photos_work(mode: str, size: tuple[int, int]):
    photo = decode(encode(Image.new(mode, size)), max_pixels=MAX_PIXELS)
    assert photo.crop(BICUBIC).shape == (224, 224, 3)
    assert max(photo.thumbnail(640).shape[:2]) == min(640, max(size))


@pytest.mark.parametrize("size", [(999_999, 1), (1, 999_999)])
def test_the_longest_photos_are_cropped_at_their_very_centre(size: tuple[int, int]):
    width, height = size
    pixels = np.zeros((height, width + 1), np.uint8)  # each row of a PNG begins with its filter
    pixels[height // 2, width // 2 + 1] = 255
    assert crop_of(png(size, pixels.tobytes()))[112, 112].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("size", "shape"), [((400, 300), (0.171875, 0.0625)), ((300, 400), (0.0625, 0.171875))])
def test_crop_fractions_tell_where_the_crop_lies(size: tuple[int, int], shape: tuple[float, float]):
    left, top, right, bottom = BILINEAR.fractions(*size)
    assert (left, top) == pytest.approx(shape, abs=0.002)
    assert (left + right, top + bottom) == pytest.approx((1, 1), abs=0.005)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_size_is_that_of_the_upright_photo(orientation: int):
    data = encode(cat(400, 300), "JPEG", exif=with_orientation(orientation))
    photo = decode(data, max_pixels=MAX_PIXELS)
    same = decode(encode(ImageOps.exif_transpose(opened(data))), max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == (same.width, same.height)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_thumbnail_is_upright(orientation: int):
    data = encode(cat(), "JPEG", quality=95, exif=with_orientation(orientation))
    upright = ImageOps.exif_transpose(opened(data))
    thumbnail = decode(data, max_pixels=MAX_PIXELS).thumbnail(150)
    assert thumbnail.shape == ((100, 150, 3) if orientation < 5 else (150, 100, 3))
    expected = np.asarray(upright.resize((thumbnail.shape[1], thumbnail.shape[0]))).astype(np.int16)
    assert np.abs(thumbnail - expected).mean() < 4


def test_the_thumbnail_never_grows_the_photo():
    assert decode(encode(cat(40, 30)), max_pixels=MAX_PIXELS).thumbnail(640).shape == (30, 40, 3)
