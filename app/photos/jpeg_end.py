"""A JPEG that lacks its end marker, which is fine if all of its pixels are there.

libjpeg fills up what is missing without an error, so two copies are decoded that go on differently: if the pixels are
all there, neither reads what was added, and both look the same.
"""

from __future__ import annotations

import io

from PIL import Image, ImageChops

from .jpeg_header import has_all_scans

_END = b"\xff\xd9"
# Bits that are neither those of a common code nor those that libjpeg adds, which are zeros.
_FILLING = b"\x6d\xb6\xdb" * 1000


def load_without_end(data: bytes, draft_size: tuple[int, int]) -> Image.Image | None:
    """Decode a JPEG that lacks nothing but its end; returns None for one that lacks pixels, or scans that refine them.

    `draft_size` is what `Image.draft` is asked for.
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
