"""JPEG files that Pillow rejects although all of their pixels are there, and those that it accepts without them.

One may lack its end marker, another may have an end marker before its last rows. libjpeg fills missing pixels without
an error. So two copies are decoded, with different bytes appended: if no pixel is missing, neither decoder reads the
appended bytes, and both pictures are the same. Others have metadata that ends early, which Pillow reads although it is
not needed.
"""

from __future__ import annotations

import io

from PIL import Image, ImageChops, UnidentifiedImageError

from .jpeg_header import end_of_scans, has_all_scans, segments

_END = b"\xff\xd9"
# Neither a common Huffman code nor the zeros that libjpeg appends.
_FILLING = b"\x6d\xb6\xdb" * 1000
# What libjpeg paints from the marker on that comes before the last rows: all coefficients 0, in any colours.
_UNFINISHED = (127, 128)
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
    body = data.rstrip(b"\xff")
    if not has_all_scans(body):
        return None
    first, second = _with_different_ends(body, draft_size)
    return first if _are_same(first, second) else None


def lacks_pixels(image: Image.Image, data: bytes, draft_size: tuple[int, int]) -> bool:
    """Return whether a decoded JPEG, which was opened from `data`, has its end marker before its last pixels.

    Only a picture that is grey in its last corner or lacks scans can, and only such a one is decoded again. That whole
    scans are absent is allowed (ITU-T T.81, section G.1.1). `draft_size` is passed to `Image.draft`.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    samples = corner if isinstance(corner, tuple) else (corner,)
    if any(sample not in _UNFINISHED for sample in samples) and has_all_scans(data):
        return False
    return not _are_same(*_with_different_ends(data[: end_of_scans(data)], draft_size))


def _with_different_ends(body: bytes, draft_size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Decode a JPEG without its end marker twice, with nothing and with other coded data behind it."""
    first, second = (open_jpeg(body + filling + _END, 0) for filling in (b"", _FILLING))
    for copy in (first, second):
        copy.draft(None, draft_size)
        copy.load()
    return first, second


def _are_same(first: Image.Image, second: Image.Image) -> bool:
    return ImageChops.difference(first, second).getbbox(alpha_only=False) is None
