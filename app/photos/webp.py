"""WebP files that libwebp rejects although all of their pixels are there: metadata ends early, or a size is wrong."""

from __future__ import annotations

import io
import struct

from PIL import Image, WebPImagePlugin  # noqa: F401 - the plugin is registered when it is imported

_MAX_CHUNKS = 1000
_EXTENDED, _EXIF = b"VP8X", b"EXIF"
_PIXELS = (b"VP8 ", b"VP8L")
_KEPT = (_EXTENDED, b"ALPH", *_PIXELS, _EXIF)
_HAS_ALPHA, _HAS_EXIF = 0x10, 0x08  # of the flags in VP8X


def open_webp(data: bytes, max_pixels: int) -> Image.Image:
    """Open a WebP; if libwebp cannot, with only its pixels and complete EXIF data."""
    try:
        return Image.open(io.BytesIO(data), formats=["WEBP"])
    except OSError:
        return Image.open(io.BytesIO(_without_metadata(data)), formats=["WEBP"])


def _without_metadata(data: bytes) -> bytes:
    """Return a picture without its metadata; an animation, and a picture that is incomplete itself, as it is."""
    chunks: dict[bytes, bytes] = {}
    start = 12
    for _ in range(_MAX_CHUNKS):
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        content = data[start + 8 : start + 8 + size]
        if kind in (b"ANIM", b"ANMF") or (len(content) < size and kind in _KEPT[:-1]):
            return data
        if kind in _KEPT and len(content) == size:
            chunks.setdefault(kind, content)
        start += 8 + size + size % 2
        if start >= len(data):
            break
    if not any(kind in chunks for kind in _PIXELS):
        return data
    if _EXTENDED in chunks:
        flags = chunks[_EXTENDED][0] & _HAS_ALPHA | (_HAS_EXIF if _EXIF in chunks else 0)
        chunks[_EXTENDED] = bytes([flags]) + chunks[_EXTENDED][1:]
    ordered = ((kind, chunks[kind]) for kind in _KEPT if kind in chunks)
    body = b"".join(kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in ordered)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
