"""Files that go wrong in every way we know, and odd ones that must go right, made as they are asked for."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from fakes import encode
from PIL import Image

MAKERS: dict[str, Callable[[], bytes]] = {}
Maker = Callable[[], bytes]


def photo_named(name: str) -> Callable[[Maker], Maker]:
    """Register a maker of one file."""

    def register(maker: Maker) -> Maker:
        MAKERS[name] = maker
        return maker

    return register


def noise(width: int = 320, height: int = 240, mode: str = "RGB") -> Image.Image:
    """Make a picture that does not compress well, the same each time."""
    shape = (height, width, len(Image.new(mode, (1, 1)).getbands()))
    pixels = np.random.default_rng(7).integers(0, 256, shape, np.uint8)
    return Image.fromarray(pixels.squeeze()).convert(mode) if mode != "CMYK" else Image.fromarray(pixels, mode="CMYK")


def png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """Write a grey PNG by hand, from any bytes as its rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def padded(size: int) -> bytes:
    """Make a good JPEG of exactly this many bytes; what follows its end is not looked at."""
    return encode(noise(), "JPEG").ljust(size, b"\0")


def truncated(tenths: int) -> bytes:
    """Cut a JPEG short."""
    whole = encode(noise(), "JPEG")
    return whole[: len(whole) * tenths // 10]


@photo_named("a PNG bomb of 1.2 gigapixels")
def _bomb() -> bytes:
    packer = zlib.compressobj(1)
    row = bytes(1 + 35_000 // 8)
    rows = b"".join([*(packer.compress(row * 1000) for _ in range(35)), packer.flush()])
    return png(35_000, 35_000, 1, rows)


@photo_named("a PNG whose header says 100 megapixels")
def _large_png_header() -> bytes:
    return png(10_000, 10_000, 8, zlib.compress(b"\0"))


@photo_named("a JPEG whose header says 100 megapixels")
def _large_jpeg_header() -> bytes:
    jpeg = bytearray(encode(noise(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 10_000, 10_000)
    return bytes(jpeg)


@photo_named("an SVG drawing")
def _svg() -> bytes:
    return b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


@photo_named("a PDF document")
def _pdf() -> bytes:
    return encode(noise(), "PDF")


@photo_named("a ZIP archive with a photo")
def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("photo.jpg", encode(noise(), "JPEG"))
    return out.getvalue()


@photo_named("text")
def _text() -> bytes:
    return b"This is no photo, whatever its name says.\n"


@photo_named("random bytes")
def _random() -> bytes:
    return np.random.default_rng(3).bytes(5000)


@photo_named("an EPS program")
def _eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"


@photo_named("a GIF of 1000 frames")
def _gif() -> bytes:
    frames = [Image.new("P", (16, 16), index % 256) for index in range(1000)]
    for frame in frames:
        frame.putpalette(bytes(range(256)) * 3)
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


@photo_named("a CMYK JPEG")
def _cmyk() -> bytes:
    return encode(noise(mode="CMYK"), "JPEG")


@photo_named("a 16-bit PNG")
def _deep() -> bytes:
    return encode(Image.fromarray(np.arange(90_000, dtype=np.uint16).reshape(300, 300)))


@photo_named("one pixel")
def _pixel() -> bytes:
    return encode(noise(1, 1))


@photo_named("10000 pixels in a row")
def _row() -> bytes:
    return encode(noise(10_000, 1))


@photo_named("10000 pixels in a column")
def _column() -> bytes:
    return encode(noise(1, 10_000))


@photo_named("broken EXIF")
def _exif() -> bytes:
    return encode(noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")


@photo_named("EXIF cut short")
def _short_exif() -> bytes:
    return encode(noise(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01\x03")


@photo_named("a broken colour profile")
def _profile() -> bytes:
    return encode(noise(), "JPEG", icc_profile=b"this is no profile" * 9)
