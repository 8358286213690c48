"""The one photo in a JSON body, `{"image": "<base64>"}`, read without a copy of its text."""

from __future__ import annotations

import re
import threading

import msgspec

from ..errors import BadRequest
from .schemas import Base64Photo

_SHAPE = '{"image": "<base64>"}'
_DECODER = msgspec.json.Decoder(Base64Photo)
# Decoding holds the GIL from the first byte to the last. Several at once would finish no sooner; they would only keep
# the other threads waiting longer.
_ONE_AT_A_TIME = threading.Lock()
_DATA_URL = re.compile(rb'(\s{0,99}\{\s{0,99}"image"\s{0,99}:\s{0,99}")(?i:data:)(?:[^,"]{0,999}(?i:;base64),)?')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse_photo(body: bytes) -> bytes:
    """Return the photo, whose base64 may have the beginning of a data: URL in front.

    Takes at most time in proportion to the body, and stops at the first member or value that is not allowed.
    Raises BadRequest with what is wrong.
    """
    body = _without_data_url(body.removeprefix(_BYTE_ORDER_MARK))
    try:
        with _ONE_AT_A_TIME:
            return _DECODER.decode(body).image
    except msgspec.ValidationError as error:
        raise _problem_of(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is declared as JSON, but cannot be read as JSON. Send {_SHAPE}.") from error


def _without_data_url(body: bytes) -> bytes:
    found = _DATA_URL.match(body)
    if found is None:
        return body
    if not found[0].endswith(b","):
        raise BadRequest("The data: URL has no ';base64,' before its data.")
    return b"".join((found[1], memoryview(body)[found.end() :]))


def _problem_of(message: str) -> BadRequest:
    """Build our own sentence from msgspec's; one that we do not know becomes a sentence on what a body must be."""
    _, is_unknown, member = message.partition("unknown field `")
    if is_unknown:
        return BadRequest(
            f"The JSON has an unknown member {member[:-1][:50]!r}. Parameters go into the query: ?top=5."
        )
    if "base64" in message:
        advice = "Use A-Z, a-z, 0-9, + and /, padded with =, without line breaks."
        return BadRequest(f"The member 'image' is not base64. {advice}")
    return BadRequest(f"The JSON must be an object with the photo as base64: {_SHAPE}.")
