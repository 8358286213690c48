"""A JPEG without its end marker, which is accepted if all of its pixels are there.

libjpeg fills missing pixels without an error. So two copies are decoded, with different bytes appended: if no pixel is
missing, neither decoder reads the appended bytes, and both pictures are the same.
"""

from __future__ import annotations

import io

from PIL import Image, ImageChops

from .jpeg_header import has_all_scans

_END = b"\xff\xd9"
# Neither a common Huffman code nor the zeros that libjpeg appends.
_FILLING = b"\x6d\xb6\xdb" * 1000


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
