"""The files that fuzzing begins with: each format of the service in each of its variants."""

from __future__ import annotations

import io
import struct
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
    yield "12-bit-tiff", _tiled_tiff(t258=12)
    yield "planar-16-bit-tiff", _tiled_tiff(planes=3, t258=16, t262=2)
    yield "inverted-16-bit-tiff", _tiled_tiff(t258=16, t262=0)
    yield "half-float-tiff", _tiled_tiff(t258=16, t339=3)
    yield "masked-bmp", _bmp(16, 3, bytes(range(256)) * 2)
    yield (
        "run-bmp",
        _bmp(8, 1, (b"\x05\x01\x00\x03\x01\x02\x03\x00\x00\x02\x01\x00\x02\x07\x00\x00") * 15 + b"\x00\x01"),
    )
    yield from ((path.stem, path.read_bytes()) for path in sorted(DATA.glob("*.heic")))


def _picture() -> Image.Image:
    """Draw waves: no two rows or columns are alike, so that decoders have real work."""
    y, x = np.mgrid[0:48, 0:72]
    waves = [128 + 120 * np.sin(x / a + y / b) for a, b in ((5, 9), (11, 3), (7, 13))]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def _tiled_tiff(planes: int = 1, **tags: int) -> bytes:
    """Write a TIFF of four tiles of 16 pixels for each plane, which Pillow does not write; tags are t and a number."""
    values = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 277: planes, 284: 1 + (planes > 1), 322: 16, 323: 16}
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    tiles, tile_bytes = 4 * planes, 32 * values[258]
    start = 8 + 2 + 12 * (len(values) + 2) + 4
    offsets = start + 8 * tiles
    entries = [(tag, 1, value) for tag, value in values.items()] + [
        (324, tiles, start),
        (325, tiles, start + 4 * tiles),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in sorted(entries))
    tables = struct.pack(f"<{tiles}I", *range(offsets, offsets + tiles * tile_bytes, tile_bytes))
    tables += struct.pack(f"<{tiles}I", *[tile_bytes] * tiles)
    pixels = (bytes(range(256)) * (tiles * tile_bytes // 256 + 1))[: tiles * tile_bytes]
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + tables + pixels


def _bmp(bits: int, compression: int, stored: bytes) -> bytes:
    """Write a BMP of 16x16 pixels with masks or runs, which Pillow does not write."""
    sizes = struct.pack("<IiiHHI5I", 40, 16, 16, 1, bits, compression, len(stored), 0, 0, 0, 0)
    colours = struct.pack("<3I", 0xF00, 0xF0, 0xF) if bits == 16 else bytes(range(256)) * 4
    start = 14 + len(sizes) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(stored), 0, 0, start) + sizes + colours + stored
