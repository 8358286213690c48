"""From uploaded bytes to a checked, upright RGB crop, the same for every model, in the service and in commands.

The format is determined from the content alone. Names, declared types and embedded metadata are never trusted, and
of the metadata only the EXIF orientation is used.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from ..errors import Problem
from .formats import FORMATS, Format, format_of
from .guards import examine
from .jpeg import lacks_pixels, load_without_end
from .jpeg_header import DEFAULT_RESIZE, min_decoded_side
from .refusals import check_size, damaged, out_of_memory, too_many_pixels

log = logging.getLogger(__name__)

# Pillow's own limit is one for the whole process, so it is the largest that a setting allows. `decode` enforces the
# limit of each photo, after the header is read and before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = 1_000_000_000
for _plugin in filter(None, (row.plugin for row in FORMATS)):
    importlib.import_module(_plugin)

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
Levels = tuple[float, float]

_TILE_SIDE = 56


@dataclass(frozen=True)
class Geometry:
    """How a photo becomes a model's input: shorter side to `resize` pixels, centre crop of `crop` pixels."""

    resize: int = DEFAULT_RESIZE
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

    def fractions(self, width: int, height: int) -> Box:
        """Return the crop (left, top, right, bottom) as fractions of an upright photo of this size."""
        left, top, right, bottom = self.box(width, height)
        return left / width, top / height, right / width, bottom / height


@dataclass(frozen=True)
class Photo:
    """A decoded photo: `width` and `height` of the upright original, and `format`."""

    width: int
    height: int
    format: str
    pixels: Image.Image
    orientation: int

    def crop(self, geometry: Geometry) -> npt.NDArray[np.uint8]:
        """Return the model's view, uint8 RGB of shape (crop, crop, 3)."""
        box = self._stored_box(geometry.box(self.width, self.height))
        resample = Image.Resampling[geometry.interpolation.upper()]
        view = _resize_to_rgb(self.pixels, (geometry.crop, geometry.crop), resample, box)
        return np.asarray(self._upright(view))

    def thumbnail(self, max_side: int) -> npt.NDArray[np.uint8]:
        """Return the upright photo, uint8 RGB of shape (height, width, 3), no side above `max_side`."""
        stored = self.pixels
        scale = min(1.0, max_side / max(stored.size))
        size = max(1, round(stored.width * scale)), max(1, round(stored.height * scale))
        return np.asarray(self._upright(_resize_to_rgb(stored, size, Image.Resampling.BICUBIC, (0, 0, *stored.size))))

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
        columns, rows = self.pixels.size
        return (
            min(left / scale, columns),
            min(top / scale, rows),
            min(right / scale, columns),
            min(bottom / scale, rows),
        )


def decode(data: bytes, *, max_pixels: int, photo_format: Format | None = None, resize: int = DEFAULT_RESIZE) -> Photo:
    """Decode a photo from its bytes.

    `photo_format` is what `format_of` returned, if the caller has examined the photo with it already. A large JPEG
    is decoded only as large as a model needs it that resizes the shorter side to `resize` pixels. Raises what
    `examine` raises, before anything is decoded, BrokenImage for a file that is damaged or cut short, and TooCostly
    if memory runs out.
    """
    if photo_format is None:
        photo_format = format_of(data)
        examine(data, max_pixels=max_pixels, photo_format=photo_format, resize=resize)
    try:
        return _decode(data, photo_format, max_pixels, resize)
    except Problem:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels(max_pixels) from error
    except Exception as error:  # hostile bytes may raise anything in a decoder; the file is at fault
        if _ran_out_of_memory(error):
            raise out_of_memory() from error
        raise damaged(photo_format.name) from error


def _ran_out_of_memory(error: Exception) -> bool:
    """Return whether a decoder reached its memory limit; libtiff and libheif report that only in their messages."""
    return isinstance(error, MemoryError) or "memory" in str(error).lower()


def _decode(data: bytes, photo_format: Format, max_pixels: int, resize: int) -> Photo:
    kind = photo_format.key
    draft_size = min_decoded_side(resize), min_decoded_side(resize)
    image = photo_format.open_image(data, max_pixels)
    width, height = image.size
    check_size(width, height, max_pixels)
    if kind == "JPEG":
        image.draft(None, draft_size)
    image = _loaded(image, data, kind, draft_size)
    if kind != "JPEG":
        width, height = image.size  # Pillow turns a TIFF upright while it loads
    _as_rgb(image.crop((0, 0, 1, 1)), (0.0, 1.0))  # a mode that cannot become RGB fails here, not in the crop
    orientation = orientation_of(image)
    if orientation >= 5:
        width, height = height, width
    return Photo(width, height, kind, image, orientation)


def _loaded(image: Image.Image, data: bytes, kind: str, draft_size: tuple[int, int]) -> Image.Image:
    """Decode the pixels; of a JPEG that lacks its end marker alone, by another way.

    Raises BrokenImage for a JPEG whose end marker comes before its last pixels.
    """
    try:
        image.load()
    except OSError:
        whole = load_without_end(data, draft_size) if kind == "JPEG" else None
        if whole is None:
            raise
        return whole
    if kind == "JPEG" and lacks_pixels(image, data, draft_size):
        raise damaged(kind)
    return image


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 if it has none that makes sense."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # broken metadata must not cost a good photo
        log.debug("EXIF ignored: %r", error)
        return 1
    return orientation if orientation in _ORIENTATIONS else 1


def _resize_to_rgb(image: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: Box) -> Image.Image:
    """Resize the part of an image in `box`, to RGB.

    An image that is not plain RGB or grey is converted and resized tile by tile, since a converted copy of a large
    photo would take several times its memory.
    """
    if image.mode in ("RGB", "L") and not image.has_transparency_data:
        return image.resize(size, resample, box=box).convert("RGB")
    levels = _levels(image)
    result = Image.new("RGB", size)
    for top in range(0, size[1], _TILE_SIDE):
        for left in range(0, size[0], _TILE_SIDE):
            tile = left, top, min(left + _TILE_SIDE, size[0]), min(top + _TILE_SIDE, size[1])
            pixels, part = _cut(image, size, box, tile)
            tile_size = tile[2] - left, tile[3] - top
            result.paste(_as_rgb(pixels, levels).resize(tile_size, resample, box=part), (left, top))
    return result


def _cut(
    image: Image.Image, size: tuple[int, int], box: Box, tile: tuple[int, int, int, int]
) -> tuple[Image.Image, Box]:
    """Cut out the pixels that one tile of a resize of `box` to `size` needs, and return them with its box in them."""
    x_scale, y_scale = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    x_start, x_end = box[0] + tile[0] * x_scale, min(box[0] + tile[2] * x_scale, box[2])
    y_start, y_end = box[1] + tile[1] * y_scale, min(box[1] + tile[3] * y_scale, box[3])
    # The widest filter, bicubic, reads two pixels beyond: of the result if that is smaller, else of the image.
    x_margin, y_margin = 2 * max(1.0, x_scale) + 1, 2 * max(1.0, y_scale) + 1
    left, top = max(0, int(x_start - x_margin)), max(0, int(y_start - y_margin))
    right, bottom = min(image.width, int(x_end + x_margin) + 1), min(image.height, int(y_end + y_margin) + 1)
    return image.crop((left, top, right, bottom)), (x_start - left, y_start - top, x_end - left, y_end - top)


def _as_rgb(image: Image.Image, levels: Levels) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _as_8_bits(image, levels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _levels(image: Image.Image) -> Levels:
    """Find black and white: the full range of 16-bit grey; of 32-bit grey, which has no agreed range, its own."""
    if image.mode not in ("I", "F"):
        return 0.0, 65535.0
    found: list[float] = []
    for top in range(0, image.height, _TILE_SIDE):
        values = np.asarray(image.crop((0, top, image.width, min(top + _TILE_SIDE, image.height))))
        values = values[np.isfinite(values)]
        if values.size:
            found += [float(values.min()), float(values.max())]
    return min(found, default=0.0), max(found, default=0.0)


def _as_8_bits(image: Image.Image, levels: Levels) -> Image.Image:
    black, white = levels
    values = np.nan_to_num(np.asarray(image), nan=black).astype(np.float64).clip(black, white)
    if (transparent := image.info.get("transparency")) is not None:  # of a PNG; it is seen over white
        values[values == transparent] = white
    return Image.fromarray(np.rint((values - black) * (255.0 / (white - black or 1.0))).astype(np.uint8))
