"""WebP files that libwebp rejects although all of their pixels are there, and those that it accepts without them.

Metadata may end early, or a size may be wrong. A file may also end in zeros, because it was never downloaded to its
end; libwebp takes these for coded data, of which they need less than a photo's own, and stops before their end. So a
file that is whole cannot be decoded without its last bytes, and one that ends in such filling can.
"""

from __future__ import annotations

import io
import struct

from PIL import Image, WebPImagePlugin  # noqa: F401 - the plugin is registered when it is imported

from .refusals import damaged, ends_in_filling

_MAX_CHUNKS = 1000
_EXTENDED, _EXIF = b"VP8X", b"EXIF"
_PIXELS = (b"VP8 ", b"VP8L")
_KEPT = (_EXTENDED, b"ALPH", *_PIXELS, _EXIF)
_HAS_ALPHA, _HAS_EXIF = 0x10, 0x08  # of the flags in VP8X
_FRAME, _FRAME_HEADER_BYTES = b"ANMF", 16
# Files that end in less filling lack nothing that is seen. libwebp fails without the last 4 bytes of a whole file.
_MAX_FILLING, _LEFT_OUT_BYTES = 32, 16


def open_webp(data: bytes, max_pixels: int) -> Image.Image:
    """Open a WebP; if libwebp cannot, with only its pixels and complete EXIF data.

    Raises BrokenImage for a file that ends in filling instead of its pixels.
    """
    if _lacks_pixels(data):
        raise damaged("WebP")
    try:
        return Image.open(io.BytesIO(data), formats=["WEBP"])
    except OSError:
        return Image.open(io.BytesIO(_without_metadata(data)), formats=["WEBP"])


def _lacks_pixels(data: bytes) -> bool:
    """Return whether the first picture ends in filling, and can be decoded without its last bytes."""
    kind, start, end = _first_picture(data)
    if kind not in _PIXELS or not ends_in_filling(data, end, min(_MAX_FILLING, end - start)):
        return False
    shorter = data[start : end - _LEFT_OUT_BYTES]
    try:
        Image.open(io.BytesIO(_riff([(kind, shorter)])), formats=["WEBP"]).load()
    except OSError:
        return False
    return True


def _first_picture(data: bytes) -> tuple[bytes, int, int]:
    """Return the kind of the first chunk of pixels, and where its content starts and ends; else of the last chunk."""
    kind, start, end = b"", 12, 12
    for _ in range(_MAX_CHUNKS):
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        end = start + 8 + size
        if kind in _PIXELS or end >= len(data):
            break
        start = start + 8 + _FRAME_HEADER_BYTES if kind == _FRAME else end + size % 2
    return kind, start + 8, min(end, len(data))


def _riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


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
    return _riff([(kind, chunks[kind]) for kind in _KEPT if kind in chunks])
