"""Names for files that are not photos of a supported format, by their beginning."""

from __future__ import annotations

import re

_STRANGERS = (
    ("a PDF document", re.compile(rb"%PDF")),
    ("a ZIP archive or an office document", re.compile(rb"PK\x03\x04")),
    ("an SVG drawing", re.compile(rb".{0,1000}<svg", re.DOTALL | re.IGNORECASE)),
    ("a web page or XML", re.compile(rb"\s*<[!?a-zA-Z]")),
    ("a JPEG XL or JPEG 2000 image", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL |\x00\x00\x00\x0cjP ")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)),
    ("text", re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+\Z")),
)
# Raw files of cameras that do not begin like a TIFF: Canon CR3 and CRW, Panasonic and Leica, Olympus, Fujifilm, Sigma,
# Minolta. The others are TIFFs, and recognised by their tags.
_CAMERA_RAW = re.compile(
    rb".{4}ftypcrx |II\x1a\x00{3}HEAPCCDR|IIU\x00|IIR[OS]\x08\x00|MMOR\x00|FUJIFILMCCD-RAW|FOVb|\x00MRM", re.DOTALL
)


def is_camera_raw(data: bytes | memoryview) -> bool:
    """Return whether a file begins like a camera's raw file that is no TIFF."""
    return _CAMERA_RAW.match(bytes(data[:32])) is not None


def resemblance(data: bytes | memoryview) -> str:
    """Describe in a few words what a file looks like."""
    head = bytes(data[:1024])
    return next((name for name, signature in _STRANGERS if signature.match(head)), "a file of another kind")
