"""The formats of photos, determined from the content alone, and the refusals of files that are none or damaged."""

from __future__ import annotations

import re

from ..errors import BrokenImage, TooManyPixels, UnsupportedImage

KINDS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"

# No camera's panorama comes near it. One column of 64 million pixels, a file of 0.5 MB, would cost 10 seconds and
# 0.5 GB, since Pillow keeps account of each row; and it holds a resize's box in single precision.
LONGEST_SIDE = 1_000_000

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
    ("BMP", re.compile(rb"BM.{12}(?:[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00)", re.DOTALL)),
)
_STRANGERS = (
    ("a PDF document", re.compile(rb"%PDF")),
    ("a ZIP archive or an office document", re.compile(rb"PK\x03\x04")),
    ("an SVG drawing", re.compile(rb".{0,1000}<svg", re.DOTALL | re.IGNORECASE)),
    ("a web page or XML", re.compile(rb"\s*<[!?a-zA-Z]")),
    ("a JPEG XL or JPEG 2000 image", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL |\x00\x00\x00\x0cjP ")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)),
    ("text", re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+\Z")),
)


def kind_of(data: bytes | memoryview) -> str | None:
    """Return the photo's format as Pillow names it, or None where it has none that we read."""
    head = bytes(data[:256])
    if head[4:8] == b"ftyp":
        brands = head[8 : int.from_bytes(head[:4], "big")]
        listed = {brands[start : start + 4] for start in range(0, len(brands), 4)}
        if listed & set(_AVIF_BRANDS):
            return "AVIF"
        return "HEIC" if listed & set(_HEIC_BRANDS) else None
    return next((kind for kind, signature in _SIGNATURES if signature.match(head)), None)


def resemblance(data: bytes | memoryview) -> str:
    """Say in a few words what a file that is no photo looks like."""
    head = bytes(data[:1024])
    return next((what for what, signature in _STRANGERS if signature.match(head)), "a file of another kind")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise TooManyPixels for more pixels than `max_pixels`, or for a side longer than any photo's."""
    if width * height > max_pixels:
        raise too_many_pixels(max_pixels)
    if max(width, height) > LONGEST_SIDE:
        raise TooManyPixels(f"The photo has a side of more than {LONGEST_SIDE:,} pixels. Send a smaller copy.")


def too_many_pixels(max_pixels: int) -> TooManyPixels:
    """Build the refusal of a photo with more than `max_pixels`."""
    return TooManyPixels(f"The photo has more than {max_pixels:,} pixels. Send a smaller copy.")


def unsupported(data: bytes | memoryview) -> UnsupportedImage:
    """Build the refusal of a file whose format is none that we read."""
    return UnsupportedImage(f"This looks like {resemblance(data)}, not like a photo. Send {KINDS}.")


def damaged(kind: str) -> BrokenImage:
    """Build the refusal of a photo whose format is known, but which cannot be decoded."""
    return BrokenImage(f"The file begins like {kind}, but it is damaged or cut short.")
