"""JPEG files that Pillow rejects although all of their pixels are there.

One may lack its end marker. libjpeg fills missing pixels without an error. So two copies are decoded, with different
bytes appended: if no pixel is missing, neither decoder reads the appended bytes, and both pictures are the same.
Another may have metadata that ends early, which Pillow reads although it is not needed.
"""

from __future__ import annotations

import io

from PIL import Image, ImageChops, UnidentifiedImageError

from .jpeg_header import has_all_scans, segments

_END = b"\xff\xd9"
# Neither a common Huffman code nor the zeros that libjpeg appends.
_FILLING = b"\x6d\xb6\xdb" * 1000
# Segments of applications and comments. Of these only EXIF, for the orientation, and Adobe's, for the colours, count.
_METADATA = {*range(0xE0, 0xF0), 0xFE}
_EXIF, _ADOBE = (0xE1, b"Exif\0\0", 6), (0xEE, b"Adobe", 12)


def open_jpeg(data: bytes, max_pixels: int) -> Image.Image:
    """Open a JPEG; if Pillow cannot, without the metadata that is not needed."""
    try:
        return Image.open(io.BytesIO(data), formats=["JPEG"])
    except UnidentifiedImageError:
        return Image.open(io.BytesIO(_without_metadata(data)), formats=["JPEG"])


def _without_metadata(data: bytes) -> bytes:
    parts, end = [data[:2]], 2
    for marker, start, end in segments(data):
        content = data[start + 4 : end]
        if marker not in _METADATA or any(
            marker == kind and content.startswith(name) and len(content) >= size
            for kind, name, size in (_EXIF, _ADOBE)
        ):
            parts.append(data[start:end])
    return b"".join([*parts, data[end:]])


def load_without_end(data: bytes, draft_size: tuple[int, int]) -> Image.Image | None:
    """Decode a JPEG that lacks only its end marker; return None if pixels or refining scans are missing.

    `draft_size` is passed to `Image.draft`.
    """
    body = data.removesuffix(b"\xff")
    if not has_all_scans(body):
        return None
    copies = []
    for filling in (b"", _FILLING):
        copy = Image.open(io.BytesIO(body + filling + _END), formats=["JPEG"])
        copy.draft(None, draft_size)
        copy.load()
        copies.append(copy)
    return copies[0] if ImageChops.difference(*copies).getbbox(alpha_only=False) is None else None
