"""Every kind of file and every mode of pixels becomes the same RGB crop, and other files are rejected by name."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import encode
from pictures import DATA, MAX_PIXELS, cat, crop_of, crop_of_picture, png
from PIL import Image
from samples import GREY, MODES

from app.errors import UnsupportedImage
from app.photos.decoding import decode
from app.photos.formats import SUPPORTED


@pytest.mark.parametrize(
    ("encoder", "options", "kind", "mean_error"),
    [
        ("PNG", {}, "PNG", 0),
        ("BMP", {}, "BMP", 0),
        ("TIFF", {}, "TIFF", 0),
        ("TIFF", {"compression": "tiff_lzw"}, "TIFF", 0),
        ("TIFF", {"compression": "tiff_adobe_deflate", "big_tiff": True}, "TIFF", 0),
        ("WEBP", {"lossless": True}, "WEBP", 0),
        ("WEBP", {"quality": 95}, "WEBP", 2),
        ("JPEG", {"quality": 95}, "JPEG", 2),
        ("JPEG", {"quality": 95, "progressive": True}, "JPEG", 2),
        ("MPO", {"quality": 95, "save_all": True, "append_images": [cat().rotate(180)]}, "JPEG", 2),
        ("GIF", {}, "GIF", 4),
        ("AVIF", {"quality": 90, "speed": 10}, "AVIF", 2),
    ],
)
def test_every_kind_gives_the_same_crop(encoder: str, options: dict[str, object], kind: str, mean_error: float):
    photo = decode(encode(cat(), encoder, **options), max_pixels=MAX_PIXELS)
    assert (photo.format, photo.width, photo.height) == (kind, 451, 300)
    assert np.abs(crop_of(encode(cat(), encoder, **options)) - crop_of_picture(cat())).mean() <= mean_error


@pytest.mark.parametrize(("file", "size"), [("drawn.heic", (320, 240)), ("drawn-rotated.heic", (240, 320))])
def test_heic_is_read_upright(file: str, size: tuple[int, int]):
    photo = decode((DATA / file).read_bytes(), max_pixels=MAX_PIXELS)
    assert (photo.format, photo.width, photo.height) == ("HEIC", *size)
    # The drawing: a yellow sun at the top right, which a quarter turn to the right brings to the bottom right.
    sun = (260, 50) if size[0] == 320 else (240 - 50, 260)
    red, green, blue = photo.pixels.getpixel(sun)
    assert red > 200
    assert green > 180
    assert blue < 60


@pytest.mark.parametrize(("data", "same_as"), MODES.values(), ids=MODES)
def test_every_mode_looks_as_it_should(data: bytes, same_as: Image.Image):
    assert np.abs(crop_of(data) - crop_of_picture(same_as)).max() <= 1


def test_cmyk_jpeg_keeps_its_colours():
    data = encode(cat().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(crop_of(data) - crop_of_picture(cat())).mean() <= 3


def test_16_bit_colour_keeps_its_high_byte():
    pixels = np.asarray(cat(), dtype=">u2") * 257
    rows = b"".join(b"\x00" + row.tobytes() for row in pixels)
    data = png((451, 300), rows, depth=16, colour_type=2)
    assert np.abs(crop_of(data) - crop_of_picture(cat())).max() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_grey_is_scaled_by_its_own_range(dtype: type[np.generic]):
    grey = np.asarray(GREY).astype(np.float64)
    low, high = grey.min(), grey.max()
    data = encode(Image.fromarray((grey * 1000 - 70_000).astype(dtype)), "TIFF")
    expected = Image.fromarray(np.rint((grey - low) * 255 / (high - low)).astype(np.uint8))
    assert np.abs(crop_of(data) - crop_of_picture(expected)).max() <= 1


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45])
def test_float_grey_with_odd_numbers_is_still_a_picture(odd: float):
    values = np.asarray(GREY).astype(np.float32)
    values[:20] = odd
    assert crop_of(encode(Image.fromarray(values), "TIFF")).shape == (224, 224, 3)


@pytest.mark.parametrize("value", [np.nan, 0.0, 7.5])
def test_float_grey_of_one_value_is_black(value: float):
    assert not crop_of(encode(Image.fromarray(np.full((9, 9), value, np.float32)), "TIFF")).any()


def test_a_lab_picture_keeps_its_neutral_grey():
    crop = crop_of(encode(Image.new("LAB", (50, 40), (255, 128, 128)), "TIFF"))
    assert crop.min() >= 253


@pytest.mark.parametrize(
    ("encoder", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})]
)
def test_of_an_animation_the_first_frame_counts(encoder: str, options: dict[str, object]):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], encoder, save_all=True, append_images=frames[1:], **options)
    assert (crop_of(data) == [255, 0, 0]).all()


def test_of_a_thousand_frames_only_the_first_is_decoded():
    frames = [Image.new("L", (20, 20), index % 256) for index in range(1000)]
    photo = decode(encode(frames[7], "GIF", save_all=True, append_images=frames), max_pixels=400)
    assert photo.pixels.tell() == 0
    assert np.asarray(photo.pixels.convert("RGB")).tolist() == [[[7, 7, 7]] * 20] * 20


def test_a_large_jpeg_is_decoded_small_and_reported_whole():
    photo = decode(encode(cat(2401, 1601), "JPEG"), max_pixels=MAX_PIXELS)
    assert (photo.width, photo.height) == (2401, 1601)
    assert photo.pixels.size == (1201, 801)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"Dear all,\nhere is my photo.\n", "text"),
        (b"A long letter. " * 500, "text"),
        ("信".encode() * 200, "text"),
        (b'{"photo": [1, 2, 3]}', "text"),
        (b"BM is how this letter begins.", "text"),
        (b"BM 14 letters.", "text"),
        (b"<!DOCTYPE html><title>Photo</title>", "a web page or XML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<svg/>", "an SVG drawing"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF document"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a ZIP archive or an office document"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42", "a video"),
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00", "a video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "a video"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a file of another kind"),
        (b"\x00", "a file of another kind"),
        (bytes(range(256)), "a file of another kind"),
        (b"", "a file of another kind"),
    ],
)
def test_what_is_no_photo_is_named(data: bytes, what: str):
    with pytest.raises(UnsupportedImage) as refusal:
        decode(data, max_pixels=MAX_PIXELS)
    assert refusal.value.detail == f"This looks like {what}, not like a photo. Send {SUPPORTED}."


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\x0a\xfa\x0b", "a JPEG XL image"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51\x00\x2f", "a JPEG 2000 image"),
        (b"II\xbc\x01\x08\x00\x00\x00", "a JPEG XR image"),
        (b"8BPS\x00\x01", "a Photoshop document"),
        (b"\x76\x2f\x31\x01\x02\x00\x00\x00", "an OpenEXR image"),
        (b"\x00\x00\x01\x00\x02\x00\x10\x10", "an icon"),
        (bytes(128) + b"DICM\x02\x00", "a DICOM image"),
        (b"\x00\x00\x00\x18ftypavci\x00\x00\x00\x00avci", "a HEIF picture of an uncommon coding"),
        (b"\x00\x00\x00\x18ftypunif\x00\x00\x00\x00unif", "a HEIF picture of an uncommon coding"),
    ],
)
def test_a_picture_of_another_format_is_named(data: bytes, what: str):
    with pytest.raises(UnsupportedImage) as refusal:
        decode(data, max_pixels=MAX_PIXELS)
    assert refusal.value.detail == f"This looks like {what}, a format that is not supported. Send {SUPPORTED}."
