"""The files that fuzzing begins with: each format of the service in each of its variants."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"


def seeds() -> Iterator[tuple[str, bytes]]:
    """Make the files, with a name for each."""
    rgb = _picture()
    grey, alpha = rgb.convert("L"), rgb.convert("RGBA")
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    second = rgb.rotate(180)
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "maker"})
    frames = {"save_all": True, "append_images": [second]}
    manners: dict[str, list[tuple[Image.Image, dict[str, object]]]] = {
        "JPEG": [(rgb, {"exif": exif, "comment": b"note"}), (rgb, {"progressive": True}), (grey, {})]
        + [
            (rgb.convert("CMYK"), {}),
            (rgb, {"subsampling": 0, "restart_marker_blocks": 2}),
            (rgb, {"optimize": True}),
        ],
        "MPO": [(rgb, frames)],
        "PNG": [(rgb, {"exif": exif}), (rgb.convert("P"), {"transparency": 3}), (deep, {}), (alpha, {}), (rgb, frames)]
        + [(grey.convert("1"), {}), (grey.convert("LA"), {}), (rgb, {"icc_profile": b"\0" * 200})],
        "WEBP": [(rgb, {"exif": exif}), (alpha, {"lossless": True}), (alpha, {}), (rgb, frames)],
        "GIF": [(rgb, {}), (rgb, frames), (grey, {"transparency": 5})],
        "BMP": [(rgb, {}), (rgb.convert("P"), {}), (grey.convert("1"), {}), (alpha, {})],
        "TIFF": [(rgb, {"exif": exif}), (grey.convert("F"), {}), (deep, {}), (grey.convert("I"), {}), (rgb, frames)]
        + [(rgb, {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
        + [(grey.convert("1"), {"compression": "group4"}), (rgb.convert("CMYK"), {}), (rgb.convert("LAB"), {})],
        "AVIF": [(rgb, {"exif": exif}), (alpha, {}), (rgb, frames)],
    }
    for kind, pictures in manners.items():
        for number, (picture, options) in enumerate(pictures):
            out = io.BytesIO()
            # Saving as JPEG changes the picture's settings, and with these saving as TIFF fails.
            fresh = {"append_images": [second.copy()]} if "append_images" in options else {}
            picture.copy().save(out, kind, **(options | fresh))
            yield f"{kind.lower()}-{number}", out.getvalue()
    yield "tiled-tiff", _tiled_tiff()
    yield from ((path.stem, path.read_bytes()) for path in sorted(DATA.glob("*.heic")))


def _picture() -> Image.Image:
    """Draw waves: no two rows or columns are alike, so that decoders have real work."""
    y, x = np.mgrid[0:48, 0:72]
    waves = [128 + 120 * np.sin(x / a + y / b) for a, b in ((5, 9), (11, 3), (7, 13))]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def _tiled_tiff() -> bytes:
    """Write a grey TIFF of four tiles of 16 pixels, which Pillow reads but does not write."""
    values = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16}
    start = 8 + 2 + 12 * (len(values) + 2) + 4
    offsets, pixels = start + 32, bytes(range(256)) * 4
    entries = [(tag, 1, value) for tag, value in values.items()] + [(324, 4, start), (325, 4, start + 16)]
    directory = b"".join(
        tag.to_bytes(2, "little") + b"\x04\0" + n.to_bytes(4, "little") + v.to_bytes(4, "little")
        for tag, n, v in entries
    )
    tables = (
        b"".join((offsets + 256 * tile).to_bytes(4, "little") for tile in range(4)) + (256).to_bytes(4, "little") * 4
    )
    head = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    return head + directory + bytes(4) + tables + pixels
