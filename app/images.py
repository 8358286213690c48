"""From uploaded bytes to a checked, upright RGB crop, the same for every model and every way in.

The kind is told from the content alone. Names, declared types and embedded metadata are never believed, and
of the metadata only the EXIF orientation is used.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pi_heif
from PIL import ExifTags, Image

from .errors import BrokenImage, TooManyPixels, UnsupportedImage

KINDS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"

# Pillow's own guard: above its cap a warning, above twice that an error. Both must stop the decoding.
warnings.simplefilter("error", Image.DecompressionBombWarning)
pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

# ISO/IEC 23008-12 (HEIF) and the AV1 Image File Format name these brands in the file's `ftyp` box.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("TIFF", re.compile(rb"II[*+]\x00|MM\x00[*+]")),
    # "BM" alone begins many an English text; a real header goes on with its own known size.
    ("BMP", re.compile(rb"BM.{12}(?:[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00|$)", re.DOTALL)),
)
_STRANGERS = (
    ("a PDF document", re.compile(rb"%PDF")),
    ("a ZIP archive or an office document", re.compile(rb"PK\x03\x04")),
    ("an SVG drawing", re.compile(rb".{0,1000}<svg", re.DOTALL | re.IGNORECASE)),
    ("a web page or XML", re.compile(rb"\s*<[!?a-zA-Z]")),
    ("a JPEG XL or JPEG 2000 image", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL |\x00\x00\x00\x0cjP ")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3", re.DOTALL)),
    ("text", re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{1,512}$")),
)

# EXIF orientation → (swap axes, mirror x, mirror y): where a point of the upright photo is stored.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Geometry:
    """How a photo becomes a model's input: shorter side to `resize` pixels, centre crop of `crop` pixels."""

    resize: int = 256
    crop: int = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def box(self, width: int, height: int) -> Box:
        """Find the crop (left, top, right, bottom) in the pixels of an upright photo of this size.

        The rounding is torchvision's (`Resize`, `CenterCrop`), so that both read the same pixels.
        """
        short = min(width, height)
        scaled_width, scaled_height = self.resize * width // short, self.resize * height // short
        left, top = round((scaled_width - self.crop) / 2), round((scaled_height - self.crop) / 2)
        x_scale, y_scale = width / scaled_width, height / scaled_height
        return left * x_scale, top * y_scale, (left + self.crop) * x_scale, (top + self.crop) * y_scale


# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, but never below twice what the resize needs.
_SHORTEST_DECODED_SIDE = 2 * Geometry().resize


@dataclass(frozen=True)
class Photo:
    """A decoded photo: `width` and `height` of the upright original, `format`, and `sha256` of its bytes."""

    width: int
    height: int
    format: str
    sha256: str
    pixels: Image.Image
    orientation: int

    def crop(self, geometry: Geometry) -> npt.NDArray[np.uint8]:
        """Return the model's view, uint8 RGB of shape (crop, crop, 3)."""
        box = self._stored_box(geometry.box(self.width, self.height))
        resample = Image.Resampling[geometry.interpolation.upper()]
        pixels, box = _cut(self.pixels, box)
        side = geometry.crop
        view = _as_rgb(pixels).resize((side, side), resample, box=box)
        return np.asarray(self._upright(view))

    def thumbnail(self, longest_side: int) -> bytes:
        """Encode the upright photo as a JPEG of at most `longest_side` pixels, free of metadata."""
        picture = _as_rgb(self.pixels)
        scale = min(1.0, longest_side / max(picture.size))
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        encoded = io.BytesIO()
        self._upright(picture.resize(size, reducing_gap=2.0)).save(encoded, "JPEG", quality=85)
        return encoded.getvalue()

    def crop_fractions(self, geometry: Geometry) -> Box:
        """Return the crop (left, top, right, bottom) as fractions of the upright photo."""
        left, top, right, bottom = geometry.box(self.width, self.height)
        return left / self.width, top / self.height, right / self.width, bottom / self.height

    def _upright(self, picture: Image.Image) -> Image.Image:
        method = _TO_UPRIGHT.get(self.orientation)
        return picture if method is None else picture.transpose(method)

    def _stored_box(self, box: Box) -> Box:
        swap, mirror_x, mirror_y = _ORIENTATIONS[self.orientation]
        left, top, right, bottom = box
        width, height = self.width, self.height
        if swap:
            left, top, right, bottom = top, left, bottom, right
            width, height = height, width
        if mirror_x:
            left, right = width - right, width - left
        if mirror_y:
            top, bottom = height - bottom, height - top
        # A JPEG decoded at reduced scale has ceil(width / scale) columns; each covers `scale` of the original.
        scale = max(1, round(width / self.pixels.width))
        limit = self.pixels.size * 2
        return tuple(min(edge / scale, end) for edge, end in zip((left, top, right, bottom), limit, strict=True))  # type: ignore[return-value]


def decode(data: bytes, *, max_pixels: int) -> Photo:
    """Decode a photo from its bytes.

    Raises UnsupportedImage for bytes of no kind we know, TooManyPixels, before anything is decoded, for width
    times height over `max_pixels`, and BrokenImage for a known kind that is damaged or cut short.
    """
    kind = _kind(data)
    if kind is None:
        raise UnsupportedImage(f"This looks like {_resemblance(data)}, not like a photo. Send {KINDS}.")
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        return _decode(data, kind, max_pixels)
    except TooManyPixels:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    except Exception as error:  # a decoder meets hostile bytes: whatever it raises, the file is at fault
        raise BrokenImage(f"The file begins like {kind}, but it is damaged or cut short.") from error


def _decode(data: bytes, kind: str, max_pixels: int) -> Photo:
    image = Image.open(io.BytesIO(data), formats=["HEIF" if kind == "HEIC" else kind])
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if kind == "JPEG":
        image.draft(None, (_SHORTEST_DECODED_SIDE, _SHORTEST_DECODED_SIDE))
    image.load()
    if kind != "JPEG":
        width, height = image.size  # Pillow turns a TIFF upright while it loads
    orientation = _orientation(image)
    if orientation >= 5:
        width, height = height, width
    return Photo(width, height, kind, hashlib.sha256(data).hexdigest(), image, orientation)


def _too_many_pixels(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"The photo has more than {max_pixels:,} pixels. Send a smaller copy.")


def _kind(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        listed = {brands[start : start + 4] for start in range(0, len(brands), 4)}
        if listed & set(_AVIF_BRANDS):
            return "AVIF"
        return "HEIC" if listed & set(_HEIC_BRANDS) else None
    return next((kind for kind, signature in _SIGNATURES if signature.match(data)), None)


def _resemblance(data: bytes) -> str:
    head = data[:1024]
    return next((what for what, signature in _STRANGERS if signature.match(head)), "a file of another kind")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # broken metadata must not cost a good photo
        warnings.warn(f"EXIF ignored: {error!r}", RuntimeWarning, stacklevel=2)
        return 1
    return orientation if orientation in _ORIENTATIONS else 1


def _cut(image: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    """Cut what a resize to `box` reads out of an image that is still to be converted to RGB.

    Conversion costs memory for each pixel, and the box of a panorama is a small part of it. The margin covers
    the widest filter: bicubic reads two output pixels beyond the box, 2/224 of its side.
    """
    if image.mode in ("RGB", "L"):
        return image, box
    margin_x, margin_y = (2 + (box[2] - box[0]) / 100), (2 + (box[3] - box[1]) / 100)
    left, top = max(0, int(box[0] - margin_x)), max(0, int(box[1] - margin_y))
    right = min(image.width, int(box[2] + margin_x) + 1)
    bottom = min(image.height, int(box[3] + margin_y) + 1)
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return image.crop((left, top, right, bottom)), moved


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _as_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _as_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey by its full range, and 32-bit grey, which has no agreed range, by its own."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / (high - low or 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
