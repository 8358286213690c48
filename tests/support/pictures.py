"""Pictures for the tests of `decoding.py`: real photos, and files that no encoder of Pillow writes."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
from fakes import encode
from PIL import Image

from app.photos.decoding import Geometry, decode

MAX_PIXELS = 64_000_000
DATA = Path(__file__).parent.parent / "data"
BILINEAR = Geometry()
BICUBIC = Geometry(interpolation="bicubic")


@functools.cache
def cat(width: int = 451, height: int = 300) -> Image.Image:
    """Scale a real photo without any symmetry."""
    return Image.fromarray(skimage.data.chelsea()).resize((width, height), Image.Resampling.LANCZOS)


def filled(data: bytes, share: float, filling: bytes = b"\0") -> bytes:
    """Keep a share of a file and repeat a byte for the rest, as an unfinished download or a damaged card leaves it."""
    kept = int(len(data) * share)
    return data[:kept] + filling * (len(data) - kept)


def crop_of(data: bytes, geometry: Geometry = BILINEAR) -> npt.NDArray[np.int16]:
    """Decode a file and return its crop, signed so that crops can be subtracted."""
    return decode(data, max_pixels=MAX_PIXELS).crop(geometry).astype(np.int16)


def crop_of_picture(picture: Image.Image, geometry: Geometry = BILINEAR) -> npt.NDArray[np.int16]:
    """Return the crop of a picture that is sent as plain RGB."""
    return crop_of(encode(picture.convert("RGB"), compress_level=1), geometry)


def png(
    size: tuple[int, int],
    pixels: bytes,
    *,
    depth: int = 8,
    colour_type: int = 0,
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """Write a PNG by hand: any bit depth, any chunks before its pixels, or no pixels at all."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    data = [(b"IDAT", zlib.compress(pixels, 1))] if pixels else []
    parts = [(b"IHDR", header), *chunks, *data, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def repair_checksums(data: bytes) -> bytes:
    """Write the right checksum after each chunk of a damaged PNG, so that the damage reaches the decoder."""
    repaired, start = data[:8], 8
    while start + 8 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        repaired += data[start : start + 4] + data[start + 4 : end]
        repaired += struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return repaired


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiled_tiff(size: int, tile: int) -> bytes:
    """Write a square grey TIFF of one compressed tile, which may be far larger than the picture."""
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(b"\x80" * tile) for _ in range(tile)) + packer.flush()
    # Width, length, bits, compression (deflate), black is zero, samples, tile width and length, offset, bytes.
    values = {256: size, 257: size, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile}
    values |= {324: 8 + 2 + 12 * (len(values) + 2) + 4, 325: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\x00" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + pixels


def animated_webp(width: int, height: int) -> bytes:
    """Write a WebP whose canvas is of any size, and whose only frame is one pixel."""
    frame = bytes(12) + b"\x64\x00\x00\x00" + encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    canvas = struct.pack("<I", 2) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + _riff(b"VP8X", canvas) + _riff(b"ANIM", bytes(6)) + _riff(b"ANMF", frame)
    return _riff(b"RIFF", body)


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body
