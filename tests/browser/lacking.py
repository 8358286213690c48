"""Photos that lack pixels although their files end as whole ones do, and whole ones that look like them."""

from __future__ import annotations

from fakes import encode
from pictures import cat, filled
from PIL import Image

UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x112] = 3


def large(kind: str, lower_half: str | None = None, **options: object) -> bytes:
    """Encode a photo that the page scales, its lower half of one colour if one is given."""
    picture = cat(900, 700)
    if lower_half is not None:
        picture.paste(lower_half, (0, 350, 900, 700))
    return encode(picture.convert("CMYK") if options.pop("is_cmyk", False) else picture, kind, **options)


def ended_early(data: bytes) -> bytes:
    """Write an end marker into a JPEG's coded data."""
    return data[: len(data) * 6 // 10].rstrip(b"\xff") + b"\xff\xd9"


def lacking() -> dict[str, bytes]:
    """Return files that lack pixels, by names that a keyword can have."""
    jpegs = {
        "usual": large("JPEG"),
        "cmyk": large("JPEG", is_cmyk=True),
        "progressive": large("JPEG", progressive=True),
        "turned": large("JPEG", exif=UPSIDE_DOWN),
    }
    fillings = {"zeros": b"\0", "ones": b"\xff"}
    return {f"{name}_jpg": ended_early(data) for name, data in jpegs.items()} | {
        f"{name}_{kind.lower()}": filled(large(kind), 0.6, filling)
        for kind in ("JPEG", "PNG", "WEBP")
        for name, filling in fillings.items()
    }


def whole() -> dict[str, bytes]:
    """Return files that lack nothing, by names that a keyword can have."""
    return {
        "progressive_jpg": large("JPEG", progressive=True),
        "grey_jpg": large("JPEG", "#808080"),
        "zeros_webp": large("WEBP", "white", lossless=True, quality=0, method=0),
        "black_png": large("PNG", "black"),
        "black_bmp": large("BMP", "black"),
    }
