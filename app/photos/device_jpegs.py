"""Which JPEG files a GPU may decode: plain ones, of a size that does not occupy it for long.

Their bytes reach the driver of the GPU, so this is asked in the decoder's sandbox, from the markers alone.
"""

from __future__ import annotations

import struct

from .costs import Estimate
from .decoding import orientation_of
from .formats import Format
from .jpeg_header import segments

MAX_BYTES = 2 * 1024 * 1024
MAX_PIXELS = 8_000_000
# Beyond this a photo has many scans, which a GPU's decoder reads on the processor, or is larger than it seems.
MAX_SECONDS = 0.05
_MIN_SIDE = 32
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_ADOBE_MARKER, _ADOBE = 0xEE, b"Adobe"
# Where Adobe's segment says how colours are stored; 1 is YCbCr.
_ADOBE_TRANSFORM = 11
# The segments of applications but the first, JFIF's, and comments.
_METADATA = {*range(0xE1, 0xF0), 0xFE}
# The names of components that are YCbCr to every decoder.
_YCBCR = (b"\x01\x02\x03", b"\x00\x01\x02")
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def device_orientation(data: bytes | memoryview, photo_format: Format, estimate: Estimate) -> int:
    """Return the EXIF orientation of a JPEG that a GPU may decode, 0 for any other file.

    It is one frame, baseline or progressive, of one or three components with the usual subsampling, in YCbCr, and
    ends with its end marker.
    """
    too_much = len(data) > MAX_BYTES or estimate.width * estimate.height > MAX_PIXELS or estimate.seconds > MAX_SECONDS
    if photo_format.key != "JPEG" or too_much or min(estimate.width, estimate.height) < _MIN_SIDE:
        return 0
    if bytes(data[-2:]) != b"\xff\xd9" or not _is_plain(data):
        return 0
    with photo_format.open_image(bytes(data), MAX_PIXELS) as image:
        return orientation_of(image)


def without_metadata(data: bytes) -> bytes:
    """Return a JPEG without what the device need not read; JFIF's own segment stays."""
    parts, end = [data[:2]], 2
    for marker, start, end in segments(data):
        if marker not in _METADATA:
            parts.append(data[start:end])
    return b"".join([*parts, data[end:]])


def chroma_factors(data: bytes) -> tuple[int, int]:
    """Return how many rows and columns of a plain JPEG share one sample of colour, (1, 1) for a grey one."""
    for marker, start, _ in segments(data):
        if marker in _FRAMES:
            return data[start + 11] & 15, data[start + 11] >> 4
    return 1, 1


def _is_plain(data: bytes | memoryview) -> bool:
    frames = 0
    for marker, start, end in segments(data):
        if marker in _FRAMES:
            frames += 1
            if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE) or not _is_plain_frame(data, start):
                return False
        content = bytes(data[start + 4 : min(end, start + 4 + _ADOBE_TRANSFORM + 1)])
        if marker == _ADOBE_MARKER and content.startswith(_ADOBE) and content[_ADOBE_TRANSFORM:] != b"\x01":
            return False
    return frames == 1


def _is_plain_frame(data: bytes | memoryview, start: int) -> bool:
    """Return whether a frame is plain grey, or has its first component at full size and both others at one factor."""
    precision, _, _, count = struct.unpack_from(">BHHB", data, start + 4)
    listed = bytes(data[start + 10 : start + 10 + 3 * count])
    if precision != 8 or len(listed) != 3 * count:
        return False
    names, factors = listed[::3], tuple(listed[1::3])
    if count == 1:
        return factors == (0x11,)  # an H200 decodes a grey file with another factor wrongly
    return count == 3 and names in _YCBCR and factors[0] in (0x11, 0x21, 0x22) and factors[1:] == (0x11, 0x11)
