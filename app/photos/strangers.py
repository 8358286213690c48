"""Names for files that are not photos of a supported format, by their beginning."""

from __future__ import annotations

import re

_STRANGERS = (
    ("a PDF document", re.compile(rb"%PDF")),
    ("a ZIP archive or an office document", re.compile(rb"PK\x03\x04")),
    ("an SVG drawing", re.compile(rb".{0,1000}<svg", re.DOTALL | re.IGNORECASE)),
    ("a web page or XML", re.compile(rb"\s*<[!?a-zA-Z]")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)),
    ("text", re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+\Z")),
)
# Pictures, some of them photos, of formats that are not read.
_OTHER_PICTURES = (
    ("a JPEG XL image", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL ")),
    ("a JPEG 2000 image", re.compile(rb"\x00\x00\x00\x0cjP |\xff\x4f\xff\x51")),
    ("a JPEG XR image", re.compile(rb"II\xbc\x01")),
    ("a Photoshop document", re.compile(rb"8BPS")),
    ("an OpenEXR image", re.compile(rb"\x76\x2f\x31\x01")),
    ("an icon", re.compile(rb"\x00\x00\x01\x00[\x01-\xff]\x00")),
    ("a DICOM image", re.compile(rb".{128}DICM", re.DOTALL)),
    (
        "a HEIF picture of an uncommon coding",
        re.compile(rb".{4}ftyp(?:.{4}){0,60}?(?:heif|unif|avc[is]|vvic|j2ki|jpeg)", re.DOTALL),
    ),
)
# Raw files of cameras that do not begin like a TIFF: Canon CR3 and CRW, Panasonic and Leica, Olympus, Fujifilm, Sigma,
# Minolta. The others are TIFFs, and recognised by their tags.
_CAMERA_RAW = re.compile(
    rb".{4}ftypcrx |II\x1a\x00{3}HEAPCCDR|IIU\x00|IIR[OS]\x08\x00|MMOR\x00|FUJIFILMCCD-RAW|FOVb|\x00MRM", re.DOTALL
)


def is_camera_raw(data: bytes | memoryview) -> bool:
    """Return whether a file begins like a camera's raw file that is no TIFF."""
    return _CAMERA_RAW.match(bytes(data[:32])) is not None


def describe(data: bytes | memoryview) -> str:
    """Say in one sentence what a file looks like."""
    head = bytes(data[:1024])
    if picture := _first(_OTHER_PICTURES, head):
        return f"This looks like {picture}, a format that is not supported."
    return f"This looks like {_first(_STRANGERS, head) or 'a file of another kind'}, not like a photo."


def _first(kinds: tuple[tuple[str, re.Pattern[bytes]], ...], head: bytes) -> str | None:
    return next((name for name, signature in kinds if signature.match(head)), None)
