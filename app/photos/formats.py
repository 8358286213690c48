"""The formats of photos: one row each, from which everything else about formats follows.

A format that Pillow or a plugin of it reads is added by a row here. The sentence of supported formats in all
languages, the file suffixes, the types that the page's file chooser accepts and its script recognises, and the checks
before decoding come from this table.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from ..errors import UnsupportedImage
from .bmp import examine_bmp, open_bmp
from .costs import Cost, Estimate
from .derivations import examine_avif, examine_heic
from .heif import open_avif, open_heic
from .jpeg import open_jpeg
from .jpeg_header import examine_jpeg
from .png import examine_png, open_png
from .raster_headers import examine_gif, examine_webp
from .refusals import camera_raw
from .strangers import describe, is_camera_raw
from .tiff_header import examine_tiff
from .tiff_pixels import open_tiff
from .webp import open_webp

# A signature is matched against this many bytes at the beginning of the file.
HEAD_BYTES = 256
# Within these an AVIF or HEIC describes its coding.
_DESCRIPTION_BYTES = 1 << 16


@dataclass(frozen=True)
class Format:
    """One format.

    `signature` is a regular expression that Python and JavaScript read alike; each character stands for a byte.
    `examine` estimates the cost from the header; without it Pillow reads the size, and `cost` is that of a pixel.
    `open` returns the file as a Pillow image; without it Pillow opens the file by the plugin of the name `pillow`, or
    of `key`, which the module `plugin` registers if Pillow does not do so itself. Both get the file's bytes and the
    largest number of pixels. `is_new` is for formats whose suffixes some systems do not know as those of images.
    """

    name: str
    signature: str
    suffixes: tuple[str, ...]
    mime_type: str
    examine: Callable[[bytes | memoryview, int], Estimate] | None = None
    open: Callable[[bytes, int], Image.Image] | None = None
    plugin: str = ""
    pillow: str = ""
    cost: Cost | None = None
    is_new: bool = False

    @property
    def key(self) -> str:
        """Return the name in answers and metrics: in capitals."""
        return self.name.upper()

    def matches(self, head: bytes) -> bool:
        """Return whether a file that begins with these bytes has this format."""
        return re.match(self.signature.encode("ascii"), head) is not None

    def open_image(self, data: bytes, max_pixels: int) -> Image.Image:
        """Open a file of this format; its pixels may be decoded now or when they are loaded."""
        if self.open is not None:
            return self.open(data, max_pixels)
        return Image.open(io.BytesIO(data), formats=[self.pillow or self.key])


_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
# "BM" alone begins many an English text; a real header goes on with its own known size.
_BMP_SIGNATURE = r"BM[\s\S]{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00"
# The brands in the `ftyp` box of AVIF (AV1 Image File Format) and HEIC (ISO/IEC 23008-12), each at a multiple of 4.
_BRANDS = r"[\s\S]{4}ftyp(?:[\s\S]{4}){0,60}?"
# The last ones, from mif1 on, are those of both: of any picture, of sequences, of profiles and of gain maps.
_AVIF_SIGNATURE = _BRANDS + r"(?:avi[fs]|MA1[AB])"
_HEIC_SIGNATURE = _BRANDS + r"(?:hei[cxms]|hev[cxms]|mif[12]|msf1|miaf|tmap)"
_HEIC_SUFFIXES = (".heic", ".heif", ".hif")

# In the order in which sentences name them. An AVIF may list a brand of HEIC too, so it comes first.
FORMATS = (
    Format("JPEG", r"\xff\xd8\xff", _JPEG_SUFFIXES, "image/jpeg", examine_jpeg, open_jpeg, "PIL.MpoImagePlugin"),
    Format("PNG", r"\x89PNG\r\n\x1a\n", (".png",), "image/png", examine_png, open_png),
    Format("WebP", r"RIFF[\s\S]{4}WEBP", (".webp",), "image/webp", examine_webp, open_webp),
    Format("GIF", r"GIF8[79]a", (".gif",), "image/gif", examine_gif),
    Format("BMP", _BMP_SIGNATURE, (".bmp", ".dib"), "image/bmp", examine_bmp, open_bmp),
    Format("TIFF", r"II[*+]\x00|MM\x00[*+]", (".tif", ".tiff"), "image/tiff", examine_tiff, open_tiff),
    Format("AVIF", _AVIF_SIGNATURE, (".avif",), "image/avif", examine_avif, open_avif, is_new=True),
    Format("HEIC", _HEIC_SIGNATURE, _HEIC_SUFFIXES, "image/heic", examine_heic, open_heic, is_new=True),
)
_AVIF, _HEIC = (next(row for row in FORMATS if row.name == name) for name in ("AVIF", "HEIC"))
KEYS = tuple(row.key for row in FORMATS)
NAMES = tuple(row.name for row in FORMATS)
SUPPORTED = ", ".join(NAMES[:-1]) + " or " + NAMES[-1]
SUFFIXES = frozenset(suffix for row in FORMATS for suffix in row.suffixes)
# For the page's file chooser: all images, and formats that its system may not count among them.
ACCEPT = ",".join(["image/*", *(suffix for row in FORMATS if row.is_new for suffix in row.suffixes)])


def find_format(data: bytes | memoryview) -> Format | None:
    """Return the format, determined from the content alone, or None for one that is not supported."""
    head = bytes(data[:HEAD_BYTES])
    found = next((row for row in FORMATS if row.matches(head)), None)
    return _by_coding(found, bytes(data[:_DESCRIPTION_BYTES])) if found in (_AVIF, _HEIC) else found


def _by_coding(found: Format | None, beginning: bytes) -> Format | None:
    """Return AVIF for a file that names AV1 (`av1C`), and HEIC for one that names HEVC (`hvcC`).

    Return `found`, the format by its brands, for a file that names both or neither.
    """
    is_av1, is_hevc = b"av1C" in beginning, b"hvcC" in beginning
    if is_av1 == is_hevc:
        return found
    return _AVIF if is_av1 else _HEIC


def format_of(data: bytes | memoryview) -> Format:
    """Return the format as `find_format` does; raises UnsupportedImage for one that is not supported."""
    found = find_format(data)
    if found is None and is_camera_raw(data):
        raise camera_raw()
    if found is None:
        raise UnsupportedImage(f"{describe(data)} Send {SUPPORTED}.")
    return found
