"""Usual mistakes of clients: what they send in place of a photo's bytes, recognised by its content."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from ..errors import BrokenImage
from ..photos.formats import SUFFIXES, find_format

_HEAD_BYTES = 4096
# Enough of a photo's beginning to know its kind, in base64.
_BASE64_CHARACTERS = 128
_ADDRESS = re.compile(rb"\s*(https?|ftps?|file|blob|content|s3|gs)://", re.IGNORECASE)
_DATA_URL = re.compile(rb"\s*data:[^,\s]{0,999},", re.IGNORECASE)
_JSON_PHOTO = re.compile(rb'\s*\{\s*"image"\s*:')
_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"
# U+FFFD, which programs write in place of bytes that are no text.
_REPLACED = "\ufffd".encode()
_MIN_REPLACED = 3
_MAX_NAME_BYTES = 300
# This many random bytes hold neither line feed nor carriage return with a probability of (254 / 256) ** 2048, one in
# ten million.
_MIN_PHOTO_BYTES = 2048
# A PNG without its line ends, or with other ones, against which its signature is made; and a JPEG without the zero
# bytes in its first segment. No whole photo begins so.
_LOST_BYTES = re.compile(rb"\x89PNG(?!\r\n\x1a\n)|\xff\xd8\xff(\xe0.JFIF|\xe1.{1,2}Exif(II|MM))", re.DOTALL)
_AS_BYTES = "Read and send it as bytes."
_LOST = "Line ends or zero bytes of this file were changed on its way. With curl use --data-binary, not -d."


def is_address(text: bytes) -> bool:
    """Return whether a text is the address of a photo; a slash may be escaped as in JSON."""
    return _ADDRESS.match(text[:_HEAD_BYTES].replace(b"\\/", b"/")) is not None


def explain(data: bytes) -> str | None:
    """Return a sentence on what was sent in place of a photo, and what to do; None if there is no usual mistake."""
    head = data[:_HEAD_BYTES]
    if _LOST_BYTES.match(head):
        return _LOST
    if find_format(head) is not None:
        return None
    return next((sentences for applies, sentences in _MISTAKES if applies(head)), None)


def explain_damage(problem: BrokenImage, data: bytes) -> BrokenImage:
    """Return the problem of a photo that cannot be decoded, with a likely reason if there is one.

    curl's -d removes line ends, which in a photo's bytes are as frequent as others. Call this only for a photo that is
    damaged: a whole picture of one colour may have none either.
    """
    if data[:_HEAD_BYTES].count(_REPLACED) >= _MIN_REPLACED:
        return BrokenImage(f"{problem.detail} It looks as if a program had read it as text. {_AS_BYTES}")
    if len(data) < _MIN_PHOTO_BYTES or b"\n" in data or b"\r" in data:
        return problem
    return BrokenImage(f"{problem.detail} It holds no line ends, as if curl -d had sent it: use --data-binary.")


def _is_base64(head: bytes) -> bool:
    text = b"".join(head.split())[:_BASE64_CHARACTERS]
    try:
        return find_format(base64.b64decode(text[: len(text) // 4 * 4], validate=True)) is not None
    except binascii.Error:
        return False


def _is_file_name(head: bytes) -> bool:
    name = head.strip().decode("utf-8", "replace").lower()
    return len(head) < _MAX_NAME_BYTES and "\n" not in name and name.endswith(tuple(SUFFIXES))


def _was_read_as_text(head: bytes) -> bool:
    """Return whether bytes were decoded and encoded as text: now they are UTF-8, or U+FFFD where they were not."""
    text = head.decode("utf-8", "ignore")  # the head may end within a character
    if len(text.encode()) < len(head) - 3:
        return False
    if head[:16].count(_REPLACED) >= 1 and head.count(_REPLACED) >= _MIN_REPLACED:
        return True
    return find_format(text.encode("latin-1", "replace")) is not None


_MISTAKES: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (is_address, "This is the address of a photo. Addresses are not fetched: send the photo itself."),
    (
        lambda head: _DATA_URL.match(head) is not None,
        'This is a data: URL. Send the photo\'s bytes, or the URL as JSON: {"image": "data:…"} with Content-Type '
        "application/json.",
    ),
    (
        lambda head: _JSON_PHOTO.match(head) is not None,
        "This is JSON. Send it with Content-Type: application/json.",
    ),
    (
        _is_base64,
        'This is a photo as base64. Send its bytes, or the base64 as JSON: {"image": "<base64>"} with Content-Type '
        "application/json.",
    ),
    (_is_file_name, "This is the name of a file, not the file. With curl write @ before the name."),
    (
        lambda head: head.startswith(_ZIP),
        "This looks like a ZIP archive or an office document. A ZIP of photos goes to predict/batch, as the body, "
        "with Content-Type: application/zip.",
    ),
    (lambda head: head.startswith(_GZIP), "This is gzip data. Send the photo without compression."),
    (
        _was_read_as_text,
        f"A program has read this file as text, which damages a photo. {_AS_BYTES}",
    ),
)
