"""The one photo in a JSON body, `{"image": "<base64>"}`, read without a copy of its text."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection

import msgspec

from ..errors import BadRequest
from .mistakes import is_address
from .schemas import Base64Photo

_SHAPE = '{"image": "<base64>"}'
_NO_FETCHING = f"Addresses are not fetched: send the photo itself, {_SHAPE}."
_DECODER = msgspec.json.Decoder(Base64Photo)
# Decoding holds the GIL from the first byte to the last. Several at once would finish no sooner; they would only keep
# the other threads waiting longer.
_ONE_AT_A_TIME = threading.Lock()
_BEGINNING = rb'(\s{0,99}\{\s{0,99}"image"\s{0,99}:\s{0,99}")'
_TEXT = re.compile(_BEGINNING)
_DATA_URL = re.compile(_BEGINNING + rb'(?i:data:)(?:[^,"]{0,999}(?i:;base64),)?')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ADDRESS_NAME = re.compile(r"url|uri|link|href|src", re.IGNORECASE)


def parse_photo(body: bytes, parameters: Collection[str] = ()) -> bytes:
    """Return the photo, whose base64 may have the beginning of a data: URL in front, and line breaks inside.

    Takes at most time in proportion to the body, and stops at the first member or value that is not allowed.
    Raises BadRequest with what is wrong; a member named as one of the query's `parameters` belongs there.
    """
    body = _without_data_url(body.removeprefix(_BYTE_ORDER_MARK))
    if not body:
        raise BadRequest(f"The body is empty, but declared as JSON. Send {_SHAPE}.")
    try:
        with _ONE_AT_A_TIME:
            return _decode(body)
    except msgspec.ValidationError as error:
        raise _problem_of(str(error), body, parameters) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        encoding = "it is UTF-16 or UTF-32, and must be UTF-8" if b"\0" in body[:4] else "its syntax is wrong"
        raise BadRequest(
            f"The body is declared as JSON, but cannot be read as JSON: {encoding}. Send {_SHAPE}."
        ) from error


def _decode(body: bytes) -> bytes:
    """Decode a body, a second time without line breaks where it has some and the first time fails.

    Programs that write base64 for mail break it into lines, and a shell puts them into JSON as they are.
    """
    try:
        return _DECODER.decode(body).image
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not any(line_break in body for line_break in (b"\n", b"\r", b"\\n", b"\\r")):
            raise
    return _DECODER.decode(body.translate(None, b"\r\n").replace(b"\\n", b"").replace(b"\\r", b"")).image


def _without_data_url(body: bytes) -> bytes:
    found = _DATA_URL.match(body)
    if found is None:
        return body
    if not found[0].endswith(b","):
        raise BadRequest("The data: URL has no ';base64,' before its data.")
    return b"".join((found[1], memoryview(body)[found.end() :]))


def _problem_of(message: str, body: bytes, parameters: Collection[str]) -> BadRequest:
    """Build our own sentence from msgspec's; one that we do not know becomes a sentence on what a body must be."""
    _, is_unknown, member = message.partition("unknown field `")
    if is_unknown:
        name = member[:-1]
        return BadRequest(f"The JSON has an unknown member '{name[:50]}'. {_advice_on(name, parameters)}")
    if "base64" in message:
        text = _TEXT.match(body)
        if text and is_address(body[text.end() : text.end() + 99]):
            return BadRequest(f"The member 'image' is an address. {_NO_FETCHING}")
        advice = "Use A-Z, a-z, 0-9, + and /, padded with =. Addresses are not fetched."
        return BadRequest(f"The member 'image' is not base64. {advice}")
    return BadRequest(f"The JSON must be an object with the photo as base64: {_SHAPE}.")


def _advice_on(member: str, parameters: Collection[str]) -> str:
    if member in parameters:
        return f"Parameters go into the query: ?{member}=…"
    return _NO_FETCHING if _ADDRESS_NAME.search(member) else f"The photo is the member 'image': {_SHAPE}."
